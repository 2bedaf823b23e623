import { type ExecaError, execa } from 'execa';
import { Problem } from './problem.ts';
import { type BytePath, nulList, readable } from './rootfs-paths.ts';

/**
 * tar must not outlive the process that waits for it: a wrapper that comes after a killed one starts the work
 * again, and an orphan would write in between. The kernel kills it (setpriv(1) --pdeathsig).
 */
const tar = ['--pdeathsig', 'KILL', 'tar'];

/** Attributes that describe the container's own overlay and SELinux label, not its files, are never carried over. */
const attributes = [
  '--xattrs',
  '--xattrs-include=*',
  '--xattrs-exclude=trusted.overlay.*',
  '--xattrs-exclude=user.overlay.*',
  '--xattrs-exclude=security.selinux',
];

/** Access and change times are left out: nobody can restore the latter, and they make each header larger. */
const create = [
  '--create',
  '--format=posix',
  '--pax-option=delete=atime,delete=ctime',
  ...attributes,
  '--acls',
  '--sparse',
  '--numeric-owner',
  '--no-recursion',
  '--null',
  '--verbatim-files-from',
];

/** Never `--absolute-names`: without it tar refuses `..` and puts symlinks that lead outside in place last. */
const extract = [
  '--extract',
  ...attributes,
  '--numeric-owner',
  '--same-owner',
  '--same-permissions',
  '--delay-directory-restore',
];

/** C's words for messages and octal escapes for every byte beyond ASCII; no options from the environment. */
const options = { env: { LC_ALL: 'C', TAR_OPTIONS: '' }, stripFinalNewline: false } as const;

/** A member of an archive. */
export interface Member {
  path: BytePath;
  isDirectory: boolean;
  /** Whether it has an access control list. */
  hasAcl: boolean;
  /** The path that a hard link is another name of. */
  linkTo?: BytePath;
}

/**
 * Packs paths of a directory into an archive file; tar's words about harmless things are not errors. Hard links
 * are kept for all but fifos and device nodes, of which each name becomes one of its own (GNU tar 1.34, seen).
 *
 * @param paths relative to `directory`; directories are packed without what they hold
 * @throws {Problem} `rootfs-changed` when a file changed or vanished meanwhile (tar's status 1, GNU tar manual
 * "Return values"), `rootfs-tar` for any other failure
 */
export async function packPaths(directory: string, paths: BytePath[], archive: string): Promise<void> {
  try {
    await execa(
      'setpriv',
      [...tar, ...create, '--file', archive, '--directory', directory, '--files-from=-'],
      {
        ...options,
        input: nulList(paths),
      },
    );
  } catch (error) {
    throw tarProblem(error, `saving ${directory}`);
  }
}

/**
 * Unpacks an archive file over a directory, with owners, modes, times to the nanosecond and attributes.
 *
 * @param hasAcls whether a member has an access control list, or one may be inherited. Without any it is quicker: tar
 * with `--acls` sets one made of the mode for each file that has none.
 * @throws {Problem} `rootfs-tar`
 */
export async function unpackArchive(archive: string, directory: string, hasAcls: boolean): Promise<void> {
  const acls = hasAcls ? ['--acls'] : [];
  try {
    await execa(
      'setpriv',
      [...tar, ...extract, ...acls, '--file', archive, '--directory', directory],
      options,
    );
  } catch (error) {
    throw tarProblem(error, `unpacking ${archive} over ${directory}`);
  }
}

/**
 * Copies paths of one directory over another, as `packPaths` and `unpackArchive` would.
 * @throws {Problem} `rootfs-changed` or `rootfs-tar`
 */
export async function copyPaths(from: string, paths: BytePath[], to: string): Promise<void> {
  try {
    await execa('setpriv', [...tar, ...create, '--file=-', '--directory', from, '--files-from=-'], {
      ...options,
      input: nulList(paths),
      buffer: { stdout: false },
    }).pipe('setpriv', [...tar, ...extract, '--acls', '--file=-', '--directory', to], options);
  } catch (error) {
    throw tarProblem(error, `bringing files of the image back into ${to}`);
  }
}

/**
 * Lists an archive file's members in their order.
 * @throws {Problem} `rootfs-tar` when it is not an archive; `rootfs-unsafe` when a member is of a kind that no file
 * of a root file system is
 */
export async function listMembers(archive: string): Promise<Member[]> {
  let lines: string[];
  try {
    const listing = [
      '--list',
      '--verbose',
      '--acls',
      '--numeric-owner',
      '--quoting-style=c',
      '--file',
      archive,
    ];
    const { stdout } = await execa('setpriv', [...tar, ...listing], {
      ...options,
      encoding: 'latin1',
      maxBuffer: 2 ** 30,
    });
    lines = stdout.split('\n').filter((line) => line !== '');
  } catch (error) {
    throw tarProblem(error, `reading ${archive}`);
  }
  return lines.map((line) => memberOf(line, archive));
}

/**
 * `drwxr-xr-x 0/0 0 2026-01-02 03:04 "name/"`, with `+` behind the mode of what has an access control list, and
 * ` -> "target"` or ` link to "target"` behind the name.
 */
const line = /^([-dlhcbpC])\S{9}(\S?)[^"]*"((?:[^"\\]|\\.)*)"(?: (?:->|link to) "((?:[^"\\]|\\.)*)")?$/;

function memberOf(text: string, archive: string): Member {
  const [, kind, acl, quoted, target] = line.exec(text) ?? [];
  if (kind === undefined || quoted === undefined) {
    throw new Problem(
      'rootfs-unsafe',
      `${archive} holds what no root file system does (${readable(text)}); it was not written by Tardis or was damaged: take another checkpoint image`,
    );
  }
  const path = unescapeName(quoted).replace(/\/$/, '');
  return {
    path,
    isDirectory: kind === 'd',
    hasAcl: acl === '+',
    ...(kind === 'h' && target !== undefined ? { linkTo: unescapeName(target) } : {}),
  };
}

/** Undoes tar's quoting style `c` (GNU tar manual, "Quoting Member Names"). */
function unescapeName(text: string): BytePath {
  const letters: Record<string, string> = { a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };
  return text.replace(/\\([0-7]{3}|.)/g, (_, code: string) =>
    code.length === 3 ? String.fromCharCode(Number.parseInt(code, 8)) : (letters[code] ?? code),
  );
}

function tarProblem(error: unknown, doing: string): Problem {
  const { exitCode, stderr, shortMessage } = error as ExecaError;
  const words =
    typeof stderr === 'string' && stderr.trim() !== '' ? stderr.trim().split('\n') : [shortMessage];
  // tar's last line only says that there were others.
  const said = words.slice(0, 3).join('; ');
  if (exitCode === 1) {
    return new Problem(
      'rootfs-changed',
      `${doing}: files changed while they were read (${said}); nothing may write to it meanwhile`,
      {
        cause: error,
      },
    );
  }
  return new Problem('rootfs-tar', `${doing}: tar failed (${said})`, { cause: error });
}
