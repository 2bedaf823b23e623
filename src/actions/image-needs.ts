import { stat, statfs } from 'node:fs/promises';
import { join, posix } from 'node:path';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import { readContainerConfig } from './container-config.ts';
import { openFilesIn } from './criu-image.ts';
import { dumpPlaceOf } from './dump-place.ts';
import type { Host } from './host.ts';
import { Problem } from './problem.ts';
import { readRuncRecord } from './runc-state.ts';
import { volumeOf } from './volume-files.ts';

/**
 * Asks, before a job may be ended for it, whether what its image needs of volumes can be there when it is restored: a file on
 * a directory in this host's memory (Docker's `--ipc shareable`, a pod's /dev/shm, an emptyDir with `medium: Memory`) goes with
 * the host. A file that is mounted by itself (/etc/resolv.conf) is made anew with each container.
 *
 * A job that is left running is warned of: its image may still be of use on this host.
 *
 * @throws Problem `volume-in-memory`
 */
export async function demandLasting(
  host: Host,
  { container, request, image }: CheckpointStep,
): Promise<void> {
  // Who keeps images in memory does not ask for more than that.
  if (await isInMemory(container.imageRoot)) return;
  const { mounts } = readContainerConfig(container.bundle);
  const root = `/proc/${readRuncRecord(container)?.pid}/root`;
  for (const { name } of openFilesIn(dumpPlaceOf({ image }))) {
    const path = posix.join('/', name);
    const volume = volumeOf(path, mounts);
    if (!volume) continue;
    const place = join(root, volume.destination);
    if (!(await stat(place)).isDirectory() || !(await isInMemory(place))) continue;
    const words =
      `the job has ${path} open, and ${volume.destination} is a volume in this host's memory (found tmpfs at ${volume.source}, ` +
      'expected a file system that outlives the host): the job could not be restored elsewhere';
    if (!request.leaveRunning) throw new Problem('volume-in-memory', `${words}. It runs on`);
    host.log.warn(words);
    return;
  }
}

/** TMPFS_MAGIC, RAMFS_MAGIC (statfs(2)). */
const memoryTypes: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

const isInMemory = async (path: string): Promise<boolean> => memoryTypes.has((await statfs(path)).type);
