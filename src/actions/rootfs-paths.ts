import { lstatSync, readdirSync, rmdirSync, type Stats, unlinkSync } from 'node:fs';
import { Problem } from './problem.ts';

/**
 * A path as a string with one character a byte (Latin-1). File names are bytes and need not be UTF-8; strings
 * of bytes can be joined, compared and used as keys without losing any.
 */
export type BytePath = string;

/** What a directory holds under one name. */
export interface Entry {
  name: BytePath;
  kind: 'directory' | 'socket' | 'device' | 'other';
}

/** Makes a byte path of ordinary text. */
export function bytesOf(text: string): BytePath {
  return Buffer.from(text).toString('latin1');
}

/** Makes a buffer of a byte path, for system calls and lists. */
export function bufferOf(path: BytePath): Buffer {
  return Buffer.from(path, 'latin1');
}

/** Makes a byte path readable for people; bytes that are not UTF-8 become U+FFFD. */
export function readable(path: BytePath): string {
  return bufferOf(path).toString('utf8');
}

/** Joins two byte paths; `.` stands for the directory itself. */
export function join(directory: BytePath, name: BytePath): BytePath {
  return directory === '.' ? name : `${directory}/${name}`;
}

/** The directory that holds a relative byte path; `.` for a path of one name. */
export function parentOf(path: BytePath): BytePath {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '.' : path.slice(0, slash);
}

/** Makes a NUL-separated list, each path ended by a NUL, as tar, xargs and deleted.files want it. */
export function nulList(paths: BytePath[]): Buffer {
  return bufferOf(paths.map((path) => `${path}\0`).join(''));
}

/**
 * Undoes the octal escapes (`\040`) of /proc/self/mountinfo (proc_pid_mountinfo(5)) and of getfattr(1).
 */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/**
 * Refuses a path that could lead out of the root file system.
 * @throws {Problem} `rootfs-unsafe` when the path is empty, absolute, or has an empty, `.` or `..` part
 * (`.` alone is the root directory and allowed).
 */
export function refuseUnsafe(path: BytePath, source: string): void {
  if (path === '.') return;
  if (path.split('/').every((part) => part !== '' && part !== '.' && part !== '..')) return;
  throw new Problem(
    'rootfs-unsafe',
    `${source} names '${readable(path)}', which is not a plain path below the root file system; ` +
      'it was not written by Tardis or was damaged: take another checkpoint image',
  );
}

/** Lists a directory, synchronously: several times faster than promises for many small directories. */
export function readDirectory(directory: BytePath): Entry[] {
  const found = readdirSync(bufferOf(directory), { withFileTypes: true, encoding: 'buffer' });
  return found.map((entry) => ({
    name: entry.name.toString('latin1'),
    kind: entry.isDirectory()
      ? 'directory'
      : entry.isSocket()
        ? 'socket'
        : entry.isCharacterDevice()
          ? 'device'
          : 'other',
  }));
}

/** Stats without following a symlink; undefined where nothing is. */
export function statsAt(path: BytePath): Stats | undefined {
  try {
    return lstatSync(bufferOf(path));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

/**
 * Makes a function that stats relative paths below `root` and follows no symlink on the way: a path that leads
 * through one is not there. Parents are remembered, so ask anew after directories have been created.
 */
export function lookInside(root: BytePath): (path: BytePath) => Stats | undefined {
  const directories = new Map<BytePath, boolean>([['.', true]]);
  const isDirectory = (path: BytePath): boolean => {
    const known = directories.get(path);
    if (known !== undefined) return known;
    const answer = isDirectory(parentOf(path)) && (statsAt(`${root}/${path}`)?.isDirectory() ?? false);
    directories.set(path, answer);
    return answer;
  };
  return (path) => (isDirectory(parentOf(path)) ? statsAt(`${root}/${path}`) : undefined);
}

/**
 * Removes what was found at an absolute path, a directory with all it holds; symlinks are removed, not followed.
 *
 * @param stats what the path was found to be; undefined when nothing may be removed
 */
export function removeTree(path: BytePath, stats: Stats | undefined): void {
  if (!stats) return;
  if (!stats.isDirectory()) {
    unlinkSync(bufferOf(path));
    return;
  }
  emptyDirectory(path);
  rmdirSync(bufferOf(path));
}

/** Removes all that a directory holds, and leaves the directory. */
export function emptyDirectory(directory: BytePath): void {
  for (const { name, kind } of readDirectory(directory)) {
    const path = `${directory}/${name}`;
    if (kind !== 'directory') {
      unlinkSync(bufferOf(path));
      continue;
    }
    emptyDirectory(path);
    rmdirSync(bufferOf(path));
  }
}
