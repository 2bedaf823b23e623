import { readlinkSync, realpathSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';

/**
 * An absolute path without symlinks, as far as it is there; what is not there yet keeps its name.
 *
 * @throws the file system's own error, such as ELOOP.
 */
export function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const parent = realPathOf(dirname(path));
  const target = linkTarget(join(parent, basename(path)));
  // A symlink to what is not there yet: what is made through it is made there.
  return target === undefined ? join(parent, basename(path)) : realPathOf(resolve(parent, target));
}

function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** Whether a path is a directory or below it, by their names alone. */
export const isInside = (directory: string, path: string): boolean =>
  !/^\.\.(\/|$)/.test(relative(resolve(directory), resolve(path)));

/**
 * Directories, those first that a path is in by its name: the others are looked at only if need be, for one of them may be on a
 * file server that does not answer.
 */
export const nearestFirst = (directories: readonly string[], path: string): string[] => [
  ...directories.filter((directory) => isInside(directory, path)),
  ...directories.filter((directory) => !isInside(directory, path)),
];
