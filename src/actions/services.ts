import { fromPromise } from 'xstate';
import { checkpointMachine } from '../machines/checkpoint.ts';
import { containerMachine } from '../machines/container.ts';
import type { RuncStep } from '../machines/container-context.ts';
import { restoreMachine } from '../machines/restore.ts';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { commitImage } from './commit-image.ts';
import { readContainerConfig } from './container-config.ts';
import { deleteContainer } from './delete-container.ts';
import { describeImage } from './describe-image.ts';
import { dumpMemory } from './dump-memory.ts';
import { type Slot, takeSlot } from './dump-slots.ts';
import { endJob } from './end-job.ts';
import { noteHeld } from './ending.ts';
import { armFaults, withFaults } from './fault.ts';
import { takeUp } from './find-images.ts';
import { freezeContainer, thawContainer } from './freeze-container.ts';
import { namingFullDisk } from './full-disk.ts';
import { handOver } from './hand-over.ts';
import { holdRestored } from './hold-restored.ts';
import type { Host } from './host.ts';
import { judgeImage } from './judge-image.ts';
import { keepUnlinked } from './keep-unlinked.ts';
import { closeLife, noteRestore } from './lives.ts';
import { markImage } from './mark-image.ts';
import { pauseContainer } from './pause-container.ts';
import { prepareImage } from './prepare-image.ts';
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
  armFaults(host);
  const service = <Input, Output>(name: string, effect: (input: Input) => Output | Promise<Output>) =>
    fromPromise<Output, Input>(async ({ input }) => {
      beforeEffect();
      return withFaults(name, () => effect(input));
    });
  /** A step that writes into the image: where it fails for want of room, it says so. */
  const writing = <Input extends { readonly container: ContainerIdentity }, Output>(
    name: string,
    effect: (input: Input) => Output | Promise<Output>,
  ) => service(name, (input: Input) => namingFullDisk(input.container.imageRoot, () => effect(input)));
  /** Had before the container is frozen, and given back as soon as its memory is dumped. */
  let dumpSlot: Slot | undefined;
  const holding = (slot: Slot | undefined): Host => ({
    ...host,
    locks: [...(host.locks ?? []), ...(slot?.descriptors ?? [])],
  });
  const asCaller = (name: string) => service(name, ({ call }: RuncStep) => runcForCaller(host, call.argv));

  return containerMachine.provide({
    actors: {
      findImage: service('findImage', (container: ContainerIdentity) => takeUp(host, container)),
      createAfresh: asCaller('createAfresh'),
      start: asCaller('start'),
      pause: service('pause', (step: RuncStep) => pauseContainer(host, step)),
      resume: asCaller('resume'),
      restoreGiven: service('restoreGiven', (step: RuncStep) => restoreGiven(host, step)),
      delete: service('delete', (step) => deleteContainer(host, step)),
      release: service('release', ({ container }) => releaseHeld(host, container)),
      recover: service('recover', (input) => recover(host, input)),
      checkpoint: checkpointMachine.provide({
        actors: {
          prepareImage: writing('prepareImage', async (step) => {
            dumpSlot = await takeSlot(host, 'dumps');
            return prepareImage(host, step);
          }),
          freeze: service('freeze', ({ container }) => freezeContainer(container)),
          saveRootfs: writing('saveRootfs', (step) => saveContainerRootfs(host, step)),
          dumpMemory: writing('dumpMemory', async (step) => {
            await dumpMemory(holding(dumpSlot), step);
            await keepUnlinked(host, step);
            dumpSlot?.release();
          }),
          thaw: service('thaw', ({ container }) => thawContainer(container)),
          describeImage: writing('describeImage', (step) => describeImage(host, step)),
          handOver: service('handOver', handOver),
          commitImage: service('commitImage', (step) => commitImage(host, step)),
          endJob: service('endJob', async ({ container, call, image }) => {
            await endJob(host, container, call);
            closeLife(host, container, image.epoch, 'checkpointed');
          }),
          undo: service('undo', (input) => {
            dumpSlot?.release();
            return undoCheckpoint(input);
          }),
        },
      }),
      restore: restoreMachine.provide({
        actors: {
          validateImage: service('validateImage', (input) => judgeImage(host, input)),
          saveRollback: service('saveRollback', ({ container }) => saveRollback(container)),
          applyRootfs: service('applyRootfs', ({ container, image }) =>
            resetRootfs(readContainerConfig(container.bundle).rootfs, image.directory),
          ),
          restoreMemory: service('restoreMemory', async (input) => {
            const slot = await takeSlot(host, 'restores');
            noteRestore(input, 'attempt');
            await restoreMemory(holding(slot), input).finally(slot.release);
          }),
          hold: service('hold', async (input) => {
            await holdRestored(host, input);
            noteHeld(input.container);
            noteRestore(input, 'restored');
          }),
          dropRollback: service('dropRollback', ({ container }) => dropRollback(container)),
          removeLeftovers: service('removeLeftovers', ({ container, call }) => endJob(host, container, call)),
          resetRootfs: service('resetRootfs', ({ container }) => rollBackRootfs(container)),
          markImage: service('markImage', ({ container, image, fallbacks, failure }) => {
            const reason = failure?.message ?? 'unknown';
            const [next] = fallbacks;
            if (next) {
              const [newer, older] = [image.generation, next.generation];
              host.log.warn({ failure }, `generation ${newer} is refused, ${older} is taken: ${reason}`);
            }
            markImage(host, container, image, reason);
          }),
        },
      }),
    },
  });
}
