import type { CheckpointInput } from '../machines/checkpoint.ts';
import type { ImageInMaking } from '../machines/vocabulary.ts';
import { type ContainerConfig, readContainerConfig, verifyByRestoreOf } from './container-config.ts';
import { chooseDumpDirectory } from './dump-place.ts';
import { takeUpLate } from './find-images.ts';
import type { Host } from './host.ts';
import { refuseUnsafePlace } from './image-place.ts';
import { dropUncommitted, openPartial } from './image-store.ts';
import { checkLife, claimLife } from './lives.ts';
import { readManifestKeys } from './manifest-keys.ts';
import { Problem } from './problem.ts';
import { findTrialProgram } from './trial-place.ts';

/**
 * CRIU opens the files of an image as the root of the job's user namespace, who may not read what is root's alone here; and
 * the id mappings of an image are not those of another container.
 */
function refuseUserNamespace({ shape }: ContainerConfig): void {
  if (!shape.namespaces.some((name) => name === 'user')) return;
  throw new Problem(
    'user-namespace',
    'the container has a user namespace (Docker userns-remap, Kubernetes hostUsers: false): found linux.namespaces with ' +
      'type user, expected none; an image of it could not be restored. It runs on; create it without one',
  );
}

/**
 * Whether the image is to be restored once before it is committed.
 *
 * @throws Problem `unproven` where that is so, and there is nobody to do it.
 */
function mustBeVerified(host: Host, { env, joinsPids }: ContainerConfig): boolean {
  const isWanted = verifyByRestoreOf(env) ?? host.config.verifyByRestore;
  if (isWanted && joinsPids) {
    throw new Problem(
      'unproven',
      'its image cannot be proven beside it (verifyByRestore): found a container in the pid namespace of another, whose ' +
        'pids others have where it is proven; do without, by TARDIS_VERIFY_BY_RESTORE=0. It runs on',
    );
  }
  if (isWanted) findTrialProgram(host);
  return isWanted;
}

/**
 * Makes the partial image, where no one but root can see or exchange it, if the container carries its job on. What
 * would make the restore refuse the image is found here, before the job is frozen: a place of others, a key file
 * that cannot be used.
 *
 * @throws Problem `user-namespace`; `images-unseen`, see {@link takeUpLate}; `unproven`, `manifest-keys`, `image-place`, `image-owner`, `image-mode`; `life-refused` where another container
 * carried the job on when this one started, `life-superseded` where one does since; the file system's own error.
 */
export function prepareImage(host: Host, { container, life }: CheckpointInput): ImageInMaking {
  readManifestKeys(host.config.manifestKeys);
  refuseUnsafePlace(host.config, container);
  const own =
    life === undefined
      ? claimLife(host, container)
      : 'unseen' in life
        ? takeUpLate(host, container, life.unseen)
        : life;
  if ('refused' in own) {
    throw new Problem(
      'life-refused',
      `the container has started from scratch while ${own.refused}; its checkpoint would take that one's place. ` +
        'It runs on; give it another TARDIS_CHECKPOINT_KEY if it is another job',
    );
  }
  if ('unseen' in own) throw new Problem('images-unseen', own.unseen);
  checkLife(container, own);
  const config = readContainerConfig(container.bundle);
  refuseUserNamespace(config);
  const isToBeVerified = mustBeVerified(host, config);
  const image = openPartial(container);
  let dumpDirectory: string | undefined;
  try {
    dumpDirectory = chooseDumpDirectory(host, container);
    // A share may give what root makes to another user (NFS root_squash, an EFS access point).
    refuseUnsafePlace(host.config, container);
  } catch (error) {
    dropUncommitted(container, image);
    throw error;
  }
  const claim = own.claim === undefined ? {} : { claim: own.claim };
  return {
    ...{ ...image, epoch: own.epoch, ...claim },
    ...(dumpDirectory ? { dumpDirectory } : {}),
    ...(isToBeVerified ? { isToBeVerified } : {}),
  };
}
