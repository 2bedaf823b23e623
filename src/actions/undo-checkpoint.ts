import type { CheckpointInput } from '../machines/checkpoint.ts';
import type { ImagePlace } from '../machines/vocabulary.ts';
import { freezeContainer, thawContainer } from './freeze-container.ts';
import { takeBack } from './hand-over.ts';
import { dropUncommitted, isCommitted, partialOf } from './image-store.ts';

/**
 * Drops an image that is not committed, takes back what the caller was given of it, and leaves the container as
 * it was found: paused, or running. The container comes first: whatever else fails, it is not left frozen. May be
 * run twice, and after a crash.
 */
export async function undoCheckpoint({
  container,
  request,
  wasPaused,
  image,
}: CheckpointInput & { readonly image: ImagePlace | undefined }): Promise<void> {
  if (wasPaused) await freezeContainer(container).catch(() => {});
  else thawContainer(container);
  if (!image || isCommitted(container, image)) return;
  // A commit that broke off may have given the image its name already.
  for (const directory of [partialOf(image), image.directory]) takeBack(request.imagePath, directory);
  dropUncommitted(container, image);
}
