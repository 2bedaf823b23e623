import fs from 'node:fs';
import { dirname, join } from 'node:path';
import type { CheckpointInput } from '../machines/checkpoint.ts';
import type { ImageInMaking } from '../machines/vocabulary.ts';
import { stopTasksAgain } from './dump-memory.ts';
import { freezeContainer, thawContainer } from './freeze-container.ts';
import { takeBack } from './hand-over.ts';
import type { Host } from './host.ts';
import { dropUncommitted, isCommitted, partialOf } from './image-store.ts';
import { keyDirectory } from './ledger.ts';
import { answers } from './share.ts';
import { dropTrial } from './trial-place.ts';

/**
 * Drops an image that is not committed, takes back what the caller was given of it, and leaves the container as
 * it was found: paused, or running. The container comes first: whatever else fails, it is not left frozen. May be
 * run twice, and after a crash.
 */
export async function undoCheckpoint(
  host: Host,
  {
    container,
    request,
    wasPaused,
    pausedForCheckpoint,
    image,
  }: CheckpointInput & { readonly image: ImageInMaking | undefined },
): Promise<void> {
  stopAgain(container);
  if (wasPaused && !pausedForCheckpoint) await freezeContainer(container).catch(() => {});
  else thawContainer(container);
  await host.watch?.end();
  await dropTrial(host, container);
  if (!(await answers(host, container.imageRoot))) {
    host.log.warn(
      { partial: image && partialOf(image) },
      `${container.imageRoot} does not answer: what the checkpoint has left there goes with the job's next one`,
    );
    return;
  }
  if (!image) dropEmptyPartials(container);
  if (!image || isCommitted(container, image)) return;
  // A commit that broke off may have given the image its name already.
  const mayTakeBack = await answers(host, dirname(request.imagePath));
  for (const directory of mayTakeBack ? [partialOf(image), image.directory] : [])
    takeBack(request.imagePath, directory);
  dropUncommitted(container, image);
}

/** The container comes first: half a file of a dead wrapper's must not keep it frozen. */
function stopAgain(container: CheckpointInput['container']): void {
  try {
    stopTasksAgain(container);
  } catch {
    // Then they run on.
  }
}

/** A wrapper that died as it made one never told which it was; nothing has been put into it yet. */
function dropEmptyPartials(container: CheckpointInput['container']): void {
  const home = keyDirectory(container);
  if (!fs.existsSync(home)) return;
  for (const name of fs.readdirSync(home).filter((found) => /^\d+\.partial$/.test(found))) {
    try {
      // One that holds more is another container's, which is at work there.
      if (fs.readdirSync(join(home, name)).join() !== 'checkpoint') continue;
      for (const directory of ['checkpoint', '']) fs.rmdirSync(join(home, name, directory));
    } catch {
      // Somebody was quicker: it is gone, or holds something by now.
    }
  }
}
