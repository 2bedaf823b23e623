import type { CheckpointInput } from '../machines/checkpoint.ts';
import type { ImageInMaking } from '../machines/vocabulary.ts';
import type { Host } from './host.ts';
import { openPartial } from './image-store.ts';
import { checkLife, claimLife } from './lives.ts';
import { Problem } from './problem.ts';

/**
 * Makes the empty partial directory of a container's next image, if the container carries its job on.
 *
 * @throws Problem `life-refused` where another container carried the job on when this one started, `life-superseded`
 * where one does since; the file system's own error.
 */
export function prepareImage(host: Host, { container, life }: CheckpointInput): ImageInMaking {
  const own = life ?? claimLife(host, container);
  if ('refused' in own) {
    throw new Problem(
      'life-refused',
      `the container has started from scratch while ${own.refused}; its checkpoint would take that one's place. ` +
        'It runs on; give it another TARDIS_CHECKPOINT_KEY if it is another job',
    );
  }
  checkLife(container, own.epoch);
  return { ...openPartial(container), epoch: own.epoch };
}
