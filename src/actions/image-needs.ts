import fs from 'node:fs';
import { stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import { type MountPoint, readContainerConfig } from './container-config.ts';
import { dumpPlaceOf } from './dump-place.ts';
import type { Host } from './host.ts';
import { partialOf } from './image-store.ts';
import { Problem } from './problem.ts';
import { readRuncRecord } from './runc-state.ts';
import { type VolumeFile, volumeFilesOf, volumeOf } from './volume-files.ts';

const summaryName = 'volumes.json';

/**
 * Asks, while a job is frozen and whole, what its image needs of volumes, and whether that can be there when it is restored;
 * notes it in the partial image.
 *
 * @throws Problem `volume-in-memory`, see {@link demandLasting}.
 */
export async function noteNeeds(host: Host, step: CheckpointStep): Promise<void> {
  const { mounts } = readContainerConfig(step.container.bundle);
  const files = await volumeFilesOf(dumpPlaceOf(step), mounts);
  await demandLasting(host, step, files, mounts);
  fs.writeFileSync(join(partialOf(step.image), summaryName), `${JSON.stringify(files)}\n`, { mode: 0o600 });
}

/** What {@link noteNeeds} found, from the partial image. */
export const readNeeds = (partial: string): VolumeFile[] =>
  JSON.parse(fs.readFileSync(join(partial, summaryName), 'utf8')) as VolumeFile[];

/**
 * A file on a directory in this host's memory (Docker's `--ipc shareable`, a pod's /dev/shm, an emptyDir with `medium: Memory`)
 * goes with the host. One that is mounted by itself (/etc/resolv.conf) is made anew with each container.
 *
 * A job that is left running is warned of: its image may still be of use on this host.
 *
 * @throws Problem `volume-in-memory` where the job would be ended.
 */
async function demandLasting(
  host: Host,
  { container, request }: CheckpointStep,
  files: readonly VolumeFile[],
  mounts: readonly MountPoint[],
): Promise<void> {
  // Who keeps images in memory does not ask for more than that.
  if (files.length === 0 || (await isInMemory(container.imageRoot))) return;
  const root = `/proc/${readRuncRecord(container)?.pid}/root`;
  for (const { path } of files) {
    const volume = volumeOf(path, mounts);
    // What the job may only read there is its engine's to make anew, as a pod's secrets are.
    if (!volume || volume.readOnly) continue;
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
