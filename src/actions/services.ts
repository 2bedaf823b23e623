import { fromPromise } from 'xstate';
import { checkpointMachine } from '../machines/checkpoint.ts';
import { containerMachine } from '../machines/container.ts';
import type { RuncStep } from '../machines/container-context.ts';
import { restoreMachine } from '../machines/restore.ts';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { readContainerConfig } from './container-config.ts';
import { deleteContainer } from './delete-container.ts';
import { dumpPlaceOf, levelFor } from './dump-place.ts';
import { type Slot, takeSlot } from './dump-slots.ts';
import { noteHeld } from './ending.ts';
import { armFaults, withFaults } from './fault.ts';
import type { KnownDigests } from './file-digests.ts';
import { takeUp } from './find-images.ts';
import { freezeForDump, thawContainer } from './freeze-container.ts';
import { namingFullDisk } from './full-disk.ts';
import type { Host } from './host.ts';
import { dumpIn } from './image-store.ts';
import { closeLife, noteRestore } from './lives.ts';
import { pauseContainer } from './pause-container.ts';
import { releaseHeld } from './release-held.ts';
import { dropRollback, rollBackRootfs, saveRollback } from './rollback.ts';
import { runcForCaller } from './runc.ts';
import { dropScratch } from './scratch.ts';

/**
 * The machines with everything they do to the world.
 *
 * @param beforeEffect called at the beginning of every service, before its effect: writes the state down. XState
 * has entered the state by then (an invoked actor is started after the snapshot is set), so what is written says
 * which step is about to be done. What only a checkpoint or a restore needs is loaded when it comes to it: most calls
 * are a create, start, kill, or delete (docs/performance.md).
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
  /** A step that writes into the host's scratch directory: likewise. */
  const onScratch = <Output>(effect: () => Promise<Output>): Promise<Output> =>
    namingFullDisk(host.config.scratchDir, effect, 'scratchDir');
  /** Had before the container is frozen, and given back when its image is dumped and digested: both take cores and memory. */
  let dumpSlot: Slot | undefined;
  /** Of the memory pages, which are digested while they are dumped. */
  let pages: Promise<KnownDigests> | undefined;
  /** Had before an image is read through, and given back when its memory is restored, or no image is left. */
  let restoreSlot: Slot | undefined;
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
      restoreGiven: service('restoreGiven', async (step: RuncStep) =>
        (await import('./restore-given.ts')).restoreGiven(host, step),
      ),
      delete: service('delete', (step) => deleteContainer(host, step)),
      release: service('release', ({ container }) => releaseHeld(host, container)),
      recover: service('recover', async (input) => (await import('./recover.ts')).recover(host, input)),
      checkpoint: checkpointMachine.provide({
        actors: {
          prepareImage: writing('prepareImage', async (step) => {
            dumpSlot = await takeSlot(host, 'dumps');
            return (await import('./prepare-image.ts')).prepareImage(host, step);
          }),
          freeze: service('freeze', ({ container }) => freezeForDump(container)),
          saveRootfs: writing('saveRootfs', async (step) =>
            (await import('./save-rootfs.ts')).saveContainerRootfs(host, step),
          ),
          dumpMemory: writing('dumpMemory', async (step) => {
            const { beginDigests } = await import('./early-digests.ts');
            const { dumpMemory } = await import('./dump-memory.ts');
            const early = levelFor(host, step) > 0 ? undefined : beginDigests(dumpIn(step.image));
            const dump = () => dumpMemory(holding(dumpSlot), step);
            await (early ? dump() : onScratch(dump)).finally(() => {
              pages = early?.finish();
            });
            await (await import('./keep-unlinked.ts')).keepUnlinked(host, step);
          }),
          thaw: service('thaw', ({ container }) => thawContainer(container)),
          describeImage: writing('describeImage', async (step) => {
            await (await import('./describe-image.ts')).describeImage(host, step, await pages);
            dumpSlot?.release();
          }),
          handOver: service('handOver', async (step) => {
            await (await import('./hand-over.ts')).handOver(dumpPlaceOf(host, step), step.request.imagePath);
            dropScratch(host, step.container);
          }),
          commitImage: service('commitImage', async (step) =>
            (await import('./commit-image.ts')).commitImage(host, step),
          ),
          endJob: service('endJob', async ({ container, call, image }) => {
            await (await import('./end-job.ts')).endJob(host, container, call);
            closeLife(host, container, image.epoch, 'checkpointed');
          }),
          undo: service('undo', async (input) => {
            dumpSlot?.release();
            await (await import('./undo-checkpoint.ts'))
              .undoCheckpoint(input)
              .finally(() => dropScratch(host, input.container));
          }),
        },
      }),
      restore: restoreMachine.provide({
        actors: {
          validateImage: service('validateImage', async (input) => {
            restoreSlot ??= await takeSlot(host, 'restores');
            return (await import('./judge-image.ts')).judgeImage(host, input);
          }),
          saveRollback: service('saveRollback', ({ container }) => saveRollback(container)),
          applyRootfs: service('applyRootfs', async ({ container, image }) =>
            (await import('./rootfs-reset.ts')).resetRootfs(
              readContainerConfig(container.bundle).rootfs,
              image.directory,
            ),
          ),
          restoreMemory: service('restoreMemory', async (input) => {
            noteRestore(input, 'attempt');
            const { restoreMemory } = await import('./restore-memory.ts');
            await restoreMemory(holding(restoreSlot), input).finally(restoreSlot?.release);
          }),
          hold: service('hold', async (input) => {
            await (await import('./hold-restored.ts')).holdRestored(host, input);
            noteHeld(input.container);
            noteRestore(input, 'restored');
          }),
          dropRollback: service('dropRollback', ({ container }) => dropRollback(container)),
          removeLeftovers: service('removeLeftovers', async ({ container, call }) =>
            (await import('./end-job.ts')).endJob(host, container, call),
          ),
          resetRootfs: service('resetRootfs', ({ container }) => rollBackRootfs(container)),
          markImage: service('markImage', async ({ container, image, fallbacks, failure }) => {
            const reason = failure?.message ?? 'unknown';
            const [next] = fallbacks;
            if (next) {
              const [newer, older] = [image.generation, next.generation];
              host.log.warn({ failure }, `generation ${newer} is refused, ${older} is taken: ${reason}`);
            } else restoreSlot?.release();
            (await import('./mark-image.ts')).markImage(host, container, image, reason);
          }),
        },
      }),
    },
  });
}
