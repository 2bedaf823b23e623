import type { CheckpointStep } from '../machines/checkpoint.ts';
import type { Host } from './host.ts';
import { commit } from './image-store.ts';
import { reasonOf } from './problem.ts';
import { collectGarbage } from './retention.ts';

/**
 * Commits a finished image, and removes what it makes superfluous.
 *
 * @throws what {@link commit} throws; litter that cannot be removed fails nothing.
 */
export async function commitImage(host: Host, { container, image }: CheckpointStep): Promise<void> {
  await commit(container, image);
  try {
    const removed = collectGarbage(container, image, host.config.keep);
    if (removed.length > 0) host.log.info({ generations: removed }, 'removed images beyond the newest');
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, 'cannot remove what the new image makes superfluous');
  }
}
