import type { CheckpointStep } from '../machines/checkpoint.ts';
import { compressionLevelOf, readContainerConfig } from './container-config.ts';
import type { Host } from './host.ts';
import { dumpIn } from './image-store.ts';
import { scratchDumpOf } from './scratch.ts';

/** zstd's level for a container's memory; 0 for none. */
export function levelFor({ config }: Host, { container }: Pick<CheckpointStep, 'container'>): number {
  return compressionLevelOf(readContainerConfig(container.bundle).env) ?? config.compressionLevel;
}

/**
 * Where CRIU dumps to: into the image itself, or, where that will be compressed, onto the host's own disk first, so that
 * a slow place of images is written to only once the job has been thawed, and only what is left to write.
 */
export const dumpPlaceOf = (host: Host, step: CheckpointStep): string =>
  levelFor(host, step) > 0 ? scratchDumpOf(host, step.container) : dumpIn(step.image);
