import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { run } from './run.ts';

/** One change of a file system, or an order to make changes durable. */
export type Step =
  | { do: 'mkdir' | 'create' | 'unlink' | 'fsync'; path: string }
  | { do: 'write'; path: string; data: Buffer }
  | { do: 'rename' | 'link' | 'symlink'; from: string; path: string }
  | { do: 'syncfs' };

/** Runs a program and records, in their order, all changes that it and its children make below a directory. */
export async function recordSteps(root: string, program: string, args: string[]): Promise<Step[]> {
  const place = mkdtempSync(join(tmpdir(), 'tardis-trace-'));
  try {
    const output = join(place, 'trace');
    const calls = [
      ...['open', 'openat', 'creat', 'mkdir', 'mkdirat', 'write', 'pwrite64', 'writev', 'copy_file_range'],
      ...['sendfile', 'ftruncate', 'fsync', 'fdatasync', 'sync', 'syncfs', 'rename', 'renameat', 'renameat2'],
      ...['link', 'linkat', 'symlink', 'symlinkat', 'unlink', 'unlinkat', 'rmdir'],
    ];
    const flags = ['-f', '-y', '-xx', '-s', '1000000', '-e', 'signal=none', '-e', `trace=${calls.join(',')}`];
    await run('strace', [...flags, '-o', output, program, ...args]);
    const lines = joinResumed(readFileSync(output, 'latin1').split('\n'));
    return lines.flatMap(stepOf).filter((step) => step.do === 'syncfs' || step.path.startsWith(`${root}/`));
  } finally {
    rmSync(place, { recursive: true });
  }
}

/** strace splits a call in two lines where another thread speaks in between: it counts where it ended. */
function joinResumed(lines: string[]): string[] {
  const begun = new Map<string, string>();
  return lines.flatMap((line) => {
    const [, pid = '', text = ''] = /^(\d+) +(.*)$/.exec(line) ?? [];
    if (text.endsWith(' <unfinished ...>')) {
      begun.set(pid, text.slice(0, -' <unfinished ...>'.length));
      return [];
    }
    const rest = /^<\.\.\. \w+ resumed>(.*)$/.exec(text)?.[1];
    return [rest === undefined ? text : `${begun.get(pid) ?? ''}${rest}`];
  });
}

function stepOf(line: string): Step[] {
  const [, call = '', words = '', result = ''] = /^(\w+)\((.*)\)\s+= (-?\d+)/.exec(line) ?? [];
  if (call === '' || result.startsWith('-')) return [];
  const strings = [...words.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g)].map(([, hex = '']) =>
    Buffer.from(hex.replaceAll('\\x', ''), 'hex'),
  );
  const directories = [...words.matchAll(/(?:\d+|AT_FDCWD)<([^>]*)>/g)].map(([, path = '']) => decode(path));
  const names = strings.map((bytes) => bytes.toString());
  const path = (i: number): string => {
    const name = names[i] ?? '';
    return name.startsWith('/') ? name : join(directories[i] ?? directories[0] ?? '', name);
  };
  switch (call) {
    case 'mkdir':
    case 'mkdirat':
      return [{ do: 'mkdir', path: path(0) }];
    case 'open':
    case 'openat':
    case 'creat':
      return call === 'creat' || words.includes('O_CREAT') ? [{ do: 'create', path: path(0) }] : [];
    case 'write':
    case 'pwrite64':
    case 'writev':
      return [{ do: 'write', path: directories[0] ?? '', data: Buffer.concat(strings) }];
    case 'fsync':
    case 'fdatasync':
      return [{ do: 'fsync', path: directories[0] ?? '' }];
    case 'sync':
    case 'syncfs':
      return [{ do: 'syncfs' }];
    case 'rename':
    case 'renameat':
    case 'renameat2':
      return [{ do: 'rename', from: path(0), path: path(1) }];
    case 'link':
    case 'linkat':
      return [{ do: 'link', from: path(0), path: path(1) }];
    case 'symlink':
    case 'symlinkat':
      return [{ do: 'symlink', from: names[0] ?? '', path: path(1) }];
    case 'unlink':
    case 'unlinkat':
    case 'rmdir':
      return [{ do: 'unlink', path: path(0) }];
    default:
      throw new Error(`nobody has said what a power cut does to ${call}`);
  }
}

const decode = (path: string): string =>
  Buffer.from(
    path.replace(/\\x([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  ).toString();

type Inode =
  | { kind: 'directory'; log: { at: number; name: string; inode: Inode | undefined }[]; synced: number[] }
  | { kind: 'file'; log: { at: number; data: Buffer | 'truncated' }[]; synced: number[] }
  | { kind: 'link'; target: string };
type Directory = Extract<Inode, { kind: 'directory' }>;
type File = Extract<Inode, { kind: 'file' }>;

/**
 * A file system that remembers every change with its time, so that it can be asked what a power cut may leave of it.
 *
 * The rules: what was synced by then is there. Of a file, what was written after its last fsync (or syncfs) is
 * absent. Of a directory, the changes of names after its last fsync took effect up to some point, in their order,
 * as in a journal; that point may be another one for every directory.
 */
export class Disk {
  readonly #root: string;
  readonly #top: Directory = { kind: 'directory', log: [], synced: [] };
  readonly #directories: Directory[] = [this.#top];
  readonly #files: File[] = [];
  readonly length: number;

  constructor(root: string, steps: readonly Step[]) {
    this.#root = root;
    this.length = steps.length;
    steps.forEach((step, at) => {
      this.#apply(step, at + 1);
    });
  }

  get directories(): number {
    return this.#directories.length;
  }

  #apply(step: Step, at: number): void {
    if (step.do === 'syncfs') {
      for (const { synced } of [...this.#directories, ...this.#files]) synced.push(at);
      return;
    }
    const found = this.#find(step.path);
    if (step.do === 'write') {
      if (found?.kind === 'file') found.log.push({ at, data: step.data });
    } else if (step.do === 'fsync') {
      if (found && found.kind !== 'link') found.synced.push(at);
    } else if (step.do === 'create' && found?.kind === 'file') {
      found.log.push({ at, data: 'truncated' });
    } else {
      const inode = this.#entering(step);
      if (step.do === 'rename') this.#enter(step.from, undefined, at);
      this.#enter(step.path, inode, at);
    }
  }

  /** What a step puts under its path; undefined where it takes away what was there. */
  #entering(step: Exclude<Step, { do: 'syncfs' }>): Inode | undefined {
    switch (step.do) {
      case 'mkdir': {
        const directory: Directory = { kind: 'directory', log: [], synced: [] };
        this.#directories.push(directory);
        return directory;
      }
      case 'create': {
        const file: File = { kind: 'file', log: [], synced: [] };
        this.#files.push(file);
        return file;
      }
      case 'rename':
      case 'link':
        return this.#find(step.from);
      case 'symlink':
        return { kind: 'link', target: step.from };
      default:
        return undefined;
    }
  }

  #enter(path: string, inode: Inode | undefined, at: number): void {
    (this.#find(dirname(path)) as Directory).log.push({ at, name: basename(path), inode });
  }

  #find(path: string): Inode | undefined {
    let inode: Inode | undefined = this.#top;
    for (const name of path.slice(this.#root.length).split('/').filter(Boolean)) {
      if (inode?.kind !== 'directory') return undefined;
      inode = inode.log.findLast((entry) => entry.name === name)?.inode;
    }
    return inode;
  }

  /**
   * Writes into an empty directory what is left when the power is cut after so many steps.
   *
   * @param lost of each directory, by its number, how much of what was not synced is lost: 0 nothing, 1 everything.
   */
  leave(into: string, after: number, lost: (directory: number) => number): void {
    const syncedBefore = (times: readonly number[]) => times.findLast((at) => at <= after) ?? 0;
    const write = (inode: Inode, path: string): void => {
      if (inode.kind === 'link') {
        symlinkSync(inode.target, path);
        return;
      }
      if (inode.kind === 'file') {
        const kept = inode.log.filter(({ at }) => at <= syncedBefore(inode.synced)).map(({ data }) => data);
        const fresh = kept.slice(kept.lastIndexOf('truncated') + 1) as Buffer[];
        writeFileSync(path, Buffer.concat(fresh), { mode: 0o600 });
        return;
      }
      if (path !== into) mkdirSync(path, { mode: 0o700 });
      const from = syncedBefore(inode.synced);
      const unsynced = inode.log.filter(({ at }) => at > from && at <= after);
      const keep = unsynced.length - Math.round(unsynced.length * lost(this.#directories.indexOf(inode)));
      const until = keep === 0 ? from : (unsynced[keep - 1]?.at ?? from);
      const names = new Map<string, Inode>();
      for (const { at, name, inode: entry } of inode.log) {
        if (at > until) break;
        if (entry) names.set(name, entry);
        else names.delete(name);
      }
      for (const [name, entry] of names) write(entry, join(path, name));
    };
    write(this.#top, into);
  }
}
