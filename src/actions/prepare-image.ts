import type { ContainerIdentity, ImagePlace } from '../machines/vocabulary.ts';
import type { Host } from './host.ts';
import { refuseUnsafePlace } from './image-place.ts';
import { dropUncommitted, openPartial } from './image-store.ts';
import { readManifestKeys } from './manifest-keys.ts';

/**
 * Makes the partial image, where no one but root can see or exchange it. What would make the restore refuse the image
 * is found here, before the job is frozen: a place of others, a key file that cannot be used.
 *
 * @throws Problem `manifest-keys`, `image-place`, `image-owner`, `image-mode`; the file system's own error.
 */
export function prepareImage(host: Host, container: ContainerIdentity): ImagePlace {
  readManifestKeys(host.config.manifestKeys);
  refuseUnsafePlace(host.config, container);
  const image = openPartial(container);
  try {
    // A share may give what root makes to another user (NFS root_squash, an EFS access point).
    refuseUnsafePlace(host.config, container);
  } catch (error) {
    dropUncommitted(container, image);
    throw error;
  }
  return image;
}
