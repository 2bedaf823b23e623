import { dirname } from 'node:path';
import { fromPromise } from 'xstate';
import { type CheckpointStep, checkpointMachine } from '../machines/checkpoint.ts';
import { containerMachine } from '../machines/container.ts';
import type { RuncStep } from '../machines/container-context.ts';
import { restoreMachine } from '../machines/restore.ts';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { deleteContainer } from './delete-container.ts';
import { dumpPlaceOf, levelFor } from './dump-place.ts';
import { type Slot, takeSlot } from './dump-slots.ts';
import { noteHeld } from './ending.ts';
import { armFaults, withFaults } from './fault.ts';
import type { KnownDigests } from './file-digests.ts';
import { takeUp } from './find-images.ts';
import { demandFrozen, freezeForDump, thawContainer } from './freeze-container.ts';
import { namingFullDisk } from './full-disk.ts';
import type { Host } from './host.ts';
import { closeLife, noteAttempt, noteOutcome } from './lives.ts';
import { pauseContainer } from './pause-container.ts';
import { releaseHeld } from './release-held.ts';
import { dropRollback, rollBackRootfs, saveRollback } from './rollback.ts';
import { runcForCaller } from './runc.ts';
import { dropScratch } from './scratch.ts';
import { answers, demandAnswer } from './share.ts';
import type { Watch } from './watch.ts';

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
  /** While a job is frozen, or waits for its restore. */
  let watch: Watch | undefined;
  const watched = (): Host => ({ ...host, watch });
  /** A step in that time: it has limits. */
  const bounded = <Input, Output>(name: string, effect: (input: Input) => Output | Promise<Output>) =>
    service(name, (input: Input) => (watch ? watch.bound(name, () => effect(input)) : effect(input)));
  /** A step that writes into the image: where it fails for want of room, it says so. */
  const writing = <Input extends { readonly container: ContainerIdentity }, Output>(
    name: string,
    effect: (input: Input) => Output | Promise<Output>,
  ) =>
    bounded(name, (input: Input) => {
      const { imageRoot } = input.container;
      return namingFullDisk(
        imageRoot,
        () => effect(input),
        undefined,
        () => answers(host, imageRoot),
      );
    });
  /** A step after the dump. That of a checkpoint with exit counts on a job that has not run on. */
  const sealing = (name: string, effect: (step: CheckpointStep) => Promise<void>) =>
    writing(name, (step: CheckpointStep) => {
      if (!step.request.leaveRunning) demandFrozen(step.container);
      return effect(step);
    });
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
    ...watched(),
    locks: [...(host.locks ?? []), ...(slot?.descriptors ?? [])],
  });
  const asCaller = (name: string) =>
    service(name, async ({ call }: RuncStep) => {
      // How long the caller's own runc takes is between the two: a restore that came before it has ended.
      await watch?.end();
      await runcForCaller(host, call.argv);
    });

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
            // It runs while it waits for its turn, and is frozen again for the dump.
            if (step.pausedForCheckpoint) thawContainer(step.container);
            dumpSlot = await takeSlot(host, 'dumps');
            await demandAnswer(host, step.container.imageRoot);
            await demandAnswer(host, dirname(step.request.imagePath));
            return (await import('./prepare-image.ts')).prepareImage(host, step);
          }),
          freeze: service('freeze', async (step) => {
            watch = (await import('./watch-job.ts')).watchCheckpoint(host, step);
            await watch.bound('freeze', () => freezeForDump(step.container));
          }),
          saveRootfs: writing('saveRootfs', async (step) => {
            demandFrozen(step.container);
            await (await import('./save-rootfs.ts')).saveContainerRootfs(host, step);
          }),
          dumpMemory: writing('dumpMemory', async (step) => {
            demandFrozen(step.container);
            const { beginDigests } = await import('./early-digests.ts');
            const { dumpMemory } = await import('./dump-memory.ts');
            const early = levelFor(host, step) > 0 ? undefined : beginDigests(dumpPlaceOf(step));
            const dump = () => dumpMemory(holding(dumpSlot), step);
            await (step.image.dumpDirectory ? onScratch(dump) : dump()).finally(() => {
              pages = early?.finish();
            });
            await (await import('./keep-unlinked.ts')).keepUnlinked(host, step);
            await (await import('./image-needs.ts')).noteNeeds(host, step);
          }),
          thaw: bounded('thaw', ({ container }) => thawContainer(container)),
          describeImage: sealing('describeImage', async (step) => {
            await (await import('./describe-image.ts')).describeImage(watched(), step, await pages);
            // The copy that is restored takes as much memory once more.
            if (!step.image.isToBeVerified) dumpSlot?.release();
          }),
          handOver: sealing('handOver', async (step) => {
            await (await import('./hand-over.ts')).handOver(dumpPlaceOf(step), step.request.imagePath);
            dropScratch(host, step.container);
          }),
          verifyImage: sealing('verifyImage', async (step) => {
            const { verifyImage } = await import('./verify-image.ts');
            await onScratch(() => verifyImage(holding(dumpSlot), step));
            dumpSlot?.release();
          }),
          commitImage: sealing('commitImage', async (step) => {
            const { commitImage, tidyAfter } = await import('./commit-image.ts');
            await commitImage(step);
            if (!step.request.leaveRunning) return;
            await watch?.end();
            await tidyAfter(host, step);
          }),
          endJob: sealing('endJob', async (step) => {
            const { container, call, image } = step;
            await (await import('./end-job.ts')).endJob(watched(), container, call);
            await watch?.end();
            await (await import('./commit-image.ts')).tidyAfter(host, step);
            await closeLife(host, container, image, 'checkpointed');
          }),
          undo: service('undo', async (input) => {
            dumpSlot?.release();
            await (await import('./undo-checkpoint.ts'))
              .undoCheckpoint(watched(), input)
              .finally(() => watch?.end())
              .finally(() => dropScratch(host, input.container));
          }),
        },
      }),
      restore: restoreMachine.provide({
        actors: {
          validateImage: service('validateImage', async (input) => {
            restoreSlot ??= await takeSlot(host, 'restores');
            watch ??= (await import('./watch-job.ts')).watchRestore(host, input);
            await watch.bound('validateImage', async () =>
              (await import('./judge-image.ts')).judgeImage(host, input),
            );
          }),
          saveRollback: bounded('saveRollback', ({ container }) => saveRollback(host, container)),
          applyRootfs: bounded('applyRootfs', async (input) =>
            (await import('./apply-image.ts')).applyImage(host, input),
          ),
          restoreMemory: bounded('restoreMemory', async (input) => {
            await noteAttempt(host, input);
            const { restoreMemory } = await import('./restore-memory.ts');
            try {
              await restoreMemory(holding(restoreSlot), input);
            } catch (error) {
              await noteOutcome(host, input, 'failed');
              throw error;
            } finally {
              restoreSlot?.release();
            }
          }),
          hold: bounded('hold', async (input) => {
            await (await import('./hold-restored.ts')).holdRestored(watched(), input);
            noteHeld(input.container);
            await noteOutcome(host, input, 'restored');
          }),
          dropRollback: service('dropRollback', async ({ container }) => {
            await watch?.end();
            await dropRollback(host, container);
          }),
          removeLeftovers: service('removeLeftovers', async ({ container, call }) => {
            // What undoes has a time of its own, as any runc of Tardis's.
            await watch?.end();
            await (await import('./end-job.ts')).endJob(host, container, call);
          }),
          resetRootfs: service('resetRootfs', async (input) => {
            await (await import('./apply-image.ts')).putVolumesBack(host, input);
            await rollBackRootfs(host, input.container);
          }),
          markImage: service('markImage', async ({ container, image, fallbacks, failure }) => {
            if (watch?.struck) await demandAnswer(host, container.imageRoot);
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
