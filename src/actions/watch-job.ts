import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import type { RestoreInput } from '../machines/restore.ts';
import { stopTasksAgain } from './dump-memory.ts';
import { thawContainer } from './freeze-container.ts';
import { freezerOf } from './freezer.ts';
import { Guardian } from './guardian.ts';
import type { Host } from './host.ts';
import { freezeSecondsPerGiB, type HostConfig } from './host-config.ts';
import { reasonOf } from './problem.ts';
import { Progress } from './progress.ts';
import { isInitAlive, readRuncRecord, usedMemory } from './runc-state.ts';
import { Watch } from './watch.ts';
import { writebackCounter } from './writeback.ts';

/**
 * Watches over a container that is about to be frozen for its checkpoint: bounds the time, and has a guardian beside it.
 *
 * @throws Problem `freezer` where runc does not know the container.
 */
export function watchCheckpoint(host: Host, step: CheckpointStep): Watch {
  const { container, wasPaused, pausedForCheckpoint } = step;
  const record = readRuncRecord(container);
  const keepFrozen = wasPaused && !pausedForCheckpoint;
  const guardian = new Guardian(host, { id: container.id, freezer: freezerOf(record), keepFrozen });
  return new Watch(host, {
    progress: new Progress(writebackCounter(container.imageRoot), guardian.pid),
    guardian,
    subject: 'the checkpoint',
    maxSeconds: maxSecondsFor(host.config, usedMemory(record)),
    release() {
      try {
        stopTasksAgain(container);
        if (keepFrozen) return 'and the container stays paused';
        thawContainer(container);
      } catch (error) {
        return `and the job could not be thawed: ${reasonOf(error)}`;
      }
      return record && isInitAlive(record) ? 'and the job runs on' : 'and the job did not survive it';
    },
  });
}

/** Bounds the time of a restore. */
export function watchRestore(host: Host, { image, container }: RestoreInput): Watch {
  return new Watch(host, {
    progress: new Progress(writebackCounter(container.bundle)),
    subject: 'the restore',
    maxSeconds: maxSecondsFor(host.config, bytesIn(image.directory)),
    release: () => 'and the container starts from scratch',
  });
}

/** Seconds that a job with so much memory may be frozen, or may take to be restored. */
export const maxSecondsFor = (
  { maxFreezeSeconds }: Pick<HostConfig, 'maxFreezeSeconds'>,
  bytes: number,
): number => maxFreezeSeconds + (bytes / 1024 ** 3) * freezeSecondsPerGiB;

/** The size of an image by its manifest, which says it of each file; 0 where it cannot be read: it is refused then anyway. */
function bytesIn(directory: string): number {
  try {
    const { files } = JSON.parse(readFileSync(join(directory, 'tardis.json'), 'utf8')) as {
      files: Record<string, { bytes: number }>;
    };
    return Object.values(files).reduce((sum, { bytes }) => sum + bytes, 0);
  } catch {
    return 0;
  }
}
