import { lstatSync } from 'node:fs';
import type { ContainerIdentity, ImagePlace } from '../machines/vocabulary.ts';
import type { Host } from './host.ts';
import { refuseUnsafePlace } from './image-place.ts';
import { markFailed } from './image-store.ts';
import { reasonOf } from './problem.ts';

/**
 * Notes beside an image that it could not be restored, and why. Where others may write, the note is left to the log
 * alone: it would follow a symlink of theirs to any file of the host.
 */
export function markImage(host: Host, container: ContainerIdentity, image: ImagePlace, reason: string): void {
  try {
    refuseUnsafePlace(host.config, container);
    if (!lstatSync(image.directory).isDirectory()) return;
  } catch (error) {
    host.log.info({ image: image.directory }, `no mark is written beside the image: ${reasonOf(error)}`);
    return;
  }
  markFailed(image, { container: container.id, reason });
}
