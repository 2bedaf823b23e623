import { fromPromise } from 'xstate';
import { checkpointMachine } from '../machines/checkpoint.ts';
import { containerMachine } from '../machines/container.ts';
import type { RuncStep } from '../machines/container-context.ts';
import { restoreMachine } from '../machines/restore.ts';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { readContainerConfig } from './container-config.ts';
import { deleteContainer } from './delete-container.ts';
import { describeImage } from './describe-image.ts';
import { dumpMemory } from './dump-memory.ts';
import { type Slot, takeSlot } from './dump-slots.ts';
import { endJob } from './end-job.ts';
import { freezeContainer, thawContainer } from './freeze-container.ts';
import { namingFullDisk } from './full-disk.ts';
import { handOver } from './hand-over.ts';
import { holdRestored } from './hold-restored.ts';
import type { Host } from './host.ts';
import { commit, findCurrentImage, markFailed, openPartial } from './image-store.ts';
import { judgeImage } from './judge-image.ts';
import { keepUnlinked } from './keep-unlinked.ts';
import { pauseContainer } from './pause-container.ts';
import { recover } from './recover.ts';
import { releaseHeld } from './release-held.ts';
import { restoreGiven } from './restore-given.ts';
import { restoreMemory } from './restore-memory.ts';
import { dropRollback, rollBackRootfs, saveRollback } from './rollback.ts';
import { resetRootfs } from './rootfs-reset.ts';
import { runcForCaller } from './runc.ts';
import { saveContainerRootfs } from './save-rootfs.ts';
import { undoCheckpoint } from './undo-checkpoint.ts';

/**
 * The machines with everything they do to the world.
 *
 * @param beforeEffect called at the beginning of every service, before its effect: writes the state down. XState
 * has entered the state by then (an invoked actor is started after the snapshot is set), so what is written says
 * which step is about to be done.
 */
export function provideServices(host: Host, beforeEffect: () => void) {
  const service = <Input, Output>(effect: (input: Input) => Output | Promise<Output>) =>
    fromPromise<Output, Input>(async ({ input }) => {
      beforeEffect();
      return effect(input);
    });
  /** A step that writes into the image: where it fails for want of room, it says so. */
  const writing = <Input extends { readonly container: ContainerIdentity }, Output>(
    effect: (input: Input) => Output | Promise<Output>,
  ) => service((input: Input) => namingFullDisk(input.container.imageRoot, () => effect(input)));
  /** Had before the container is frozen, and given back as soon as its memory is dumped. */
  let dumpSlot: Slot | undefined;
  const asCaller = service(({ call }: RuncStep) => runcForCaller(host, call.argv));

  return containerMachine.provide({
    actors: {
      findImage: service((container: ContainerIdentity) => findCurrentImage(container)),
      createAfresh: asCaller,
      start: asCaller,
      pause: service((step: RuncStep) => pauseContainer(host, step)),
      resume: asCaller,
      restoreGiven: service((step: RuncStep) => restoreGiven(host, step)),
      delete: service((step) => deleteContainer(host, step)),
      release: service(({ container }) => releaseHeld(host, container)),
      recover: service((input) => recover(host, input)),
      checkpoint: checkpointMachine.provide({
        actors: {
          prepareImage: writing(async ({ container }) => {
            dumpSlot = await takeSlot(host, 'dumps');
            return openPartial(container);
          }),
          freeze: service(({ container }) => freezeContainer(container)),
          saveRootfs: writing((step) => saveContainerRootfs(host, step)),
          dumpMemory: writing(async (step) => {
            await dumpMemory(host, step);
            await keepUnlinked(host, step);
            dumpSlot?.release();
          }),
          thaw: service(({ container }) => thawContainer(container)),
          describeImage: writing((step) => describeImage(host, step)),
          handOver: service(handOver),
          commitImage: service(({ container, image }) => commit(container, image)),
          endJob: service(({ container, call }) => endJob(host, container, call)),
          undo: service((input) => {
            dumpSlot?.release();
            return undoCheckpoint(input);
          }),
        },
      }),
      restore: restoreMachine.provide({
        actors: {
          validateImage: service((input) => judgeImage(host, input)),
          saveRollback: service(({ container }) => saveRollback(container)),
          applyRootfs: service(({ container, image }) =>
            resetRootfs(readContainerConfig(container.bundle).rootfs, image.directory),
          ),
          restoreMemory: service(async (input) => {
            const slot = await takeSlot(host, 'restores');
            await restoreMemory(host, input).finally(slot.release);
          }),
          hold: service((input) => holdRestored(host, input)),
          dropRollback: service(({ container }) => dropRollback(container)),
          removeLeftovers: service(({ container, call }) => endJob(host, container, call)),
          resetRootfs: service(({ container }) => rollBackRootfs(container)),
          markImage: service(({ container, image, failure }) =>
            markFailed(image, { container: container.id, reason: failure?.message ?? 'unknown' }),
          ),
        },
      }),
    },
  });
}
