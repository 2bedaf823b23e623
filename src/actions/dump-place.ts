import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import { compressionLevelOf, readContainerConfig } from './container-config.ts';
import type { Host } from './host.ts';
import { dumpIn } from './image-store.ts';
import { reasonOf } from './problem.ts';
import { readRuncRecord, usedMemory } from './runc-state.ts';
import { freshScratch, prepareScratch, scratchDumpOf } from './scratch.ts';

/** zstd's level for a container's memory; 0 for none. */
export function levelFor({ config }: Host, { container }: Pick<CheckpointStep, 'container'>): number {
  return compressionLevelOf(readContainerConfig(container.bundle).env) ?? config.compressionLevel;
}

/**
 * Chooses where CRIU dumps to: onto the host's own disk, from where its files come into the image once its hold of the job
 * is over; or right into the image, where that is on the same disk.
 *
 * CRIU holds every task by ptrace, and a CRIU that sleeps on a file server that is gone can neither be ended nor be
 * parted from them: they would be held until the server is back, and no freezer lets them go. So a dump never waits for
 * one, unless the host's disk has no room for it.
 *
 * @throws where the memory is to be compressed: Problem `image-owner`, `image-mode`; the file system's own error.
 */
export function chooseDumpDirectory(host: Host, container: CheckpointStep['container']): string | undefined {
  if (levelFor(host, { container }) > 0) {
    prepareScratch(host, container, 0);
    return scratchDumpOf(host, container);
  }
  if (deviceOf(host.config.scratchDir) === deviceOf(container.imageRoot)) return undefined;
  try {
    prepareScratch(host, container, usedMemory(readRuncRecord(container)));
    freshScratch(host, container);
  } catch (error) {
    host.log.warn(
      `${reasonOf(error)}; CRIU dumps into the image itself, and a file server that hangs keeps the job frozen`,
    );
    return undefined;
  }
  return scratchDumpOf(host, container);
}

/** The file system that a directory is on, or will be made on. */
function deviceOf(directory: string): number {
  const stats = statSync(directory, { throwIfNoEntry: false });
  return stats?.dev ?? deviceOf(dirname(directory));
}

/** Where CRIU dumps to. */
export const dumpPlaceOf = ({ image }: Pick<CheckpointStep, 'image'>): string =>
  image.dumpDirectory ?? dumpIn(image);
