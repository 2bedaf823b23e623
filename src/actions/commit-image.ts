import type { CheckpointStep } from '../machines/checkpoint.ts';
import type { Host } from './host.ts';
import { commit } from './image-store.ts';
import { reasonOf } from './problem.ts';
import { collectGarbage } from './retention.ts';
import { demandAnswer } from './share.ts';

/**
 * Commits a finished image.
 *
 * @throws what {@link commit} throws.
 */
export const commitImage = ({ container, image }: CheckpointStep): Promise<void> => commit(container, image);

/** Removes what a committed image makes superfluous; litter that cannot be removed fails nothing. */
export async function tidyAfter(host: Host, { container, image }: CheckpointStep): Promise<void> {
  try {
    await demandAnswer(host, container.imageRoot);
    const removed = await collectGarbage(container, image, host.config.keep);
    if (removed.length > 0) host.log.info({ generations: removed }, 'removed images beyond the newest');
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, 'cannot remove what the new image makes superfluous');
  }
}
