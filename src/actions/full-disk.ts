import { statfsSync } from 'node:fs';
import { Problem, reasonOf } from './problem.ts';

/** Where less than this is free, what failed is taken to have failed for want of room. */
const fullBelow = 256 * 1024;

/**
 * Does something that writes below a directory; where it fails and the file system is full, says so: tar and CRIU
 * speak of bytes and pages only.
 *
 * @param settings those that name the directory.
 * @param isReachable asked before the directory is looked at: its file server may be what failed.
 * @throws Problem `disk-full`, or what the work threw.
 */
export async function namingFullDisk<Result>(
  directory: string,
  work: () => Result | Promise<Result>,
  settings = 'checkpointRoot or TARDIS_CHECKPOINT_HOST_PATH',
  isReachable: () => Promise<boolean> = async () => true,
): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (!(await isReachable())) throw error;
    const free = freeOrUnknown(directory);
    if (free === undefined || free >= fullBelow) throw error;
    throw new Problem(
      'disk-full',
      `no room is left on the file system of ${directory} (${free} bytes free); remove what is not needed ` +
        `there, or name a larger place by ${settings}. It broke off here: ${reasonOf(error)}`,
      { cause: error },
    );
  }
}

/**
 * What an ordinary user may still write on the file system of a directory (statfs(2)).
 *
 * @throws the file system's own error.
 */
export function freeBytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize;
}

function freeOrUnknown(directory: string): number | undefined {
  try {
    return freeBytes(directory);
  } catch {
    return undefined;
  }
}
