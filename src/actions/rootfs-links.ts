import type { Stats } from 'node:fs';
import { execa } from 'execa';
import { Problem, reasonOf } from './problem.ts';
import { type BytePath, bufferOf } from './rootfs-paths.ts';

/**
 * Finds the other names of hard-linked files: copied without them, a file would lose its links. Looks through the
 * whole directory, but only when one of the paths has more than one name.
 *
 * @param directory absolute
 * @param paths relative to it
 * @param look stats one of the paths
 * @returns relative paths that are not among `paths`
 * @throws {Problem} `rootfs-links` when find(1) fails
 */
export async function listOtherNames(
  directory: BytePath,
  paths: Set<BytePath>,
  look: (path: BytePath) => Stats | undefined,
): Promise<BytePath[]> {
  const inodes = new Set<string>();
  for (const path of paths) {
    const stats = look(path);
    if (stats && !stats.isDirectory() && stats.nlink > 1) inodes.add(`${stats.dev}:${stats.ino}`);
  }
  if (inodes.size === 0) return [];
  return (await listLinkedFiles(directory))
    .map((line) => ({ inode: line.slice(0, line.indexOf('/')), path: line.slice(line.indexOf('/') + 1) }))
    .filter(({ inode, path }) => inodes.has(inode) && !paths.has(path))
    .map(({ path }) => path);
}

/** Lists files of more than one name as `<device>:<inode>/<relative path>`. */
async function listLinkedFiles(directory: BytePath): Promise<string[]> {
  const expression = ['-xdev', '!', '-type', 'd', '-links', '+1', '-printf', '%D:%i/%P\\0'];
  try {
    const { stdout } = await execa('find', [bufferOf(directory).toString(), ...expression], {
      encoding: 'latin1',
      stripFinalNewline: false,
      maxBuffer: 2 ** 30,
    });
    return stdout.split('\0').filter((line) => line !== '');
  } catch (error) {
    throw new Problem('rootfs-links', `cannot look for hard links: ${reasonOf(error)}`, { cause: error });
  }
}
