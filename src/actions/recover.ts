import type { CheckpointContext } from '../machines/checkpoint.ts';
import type { ContainerInput, Interruption, Recovered } from '../machines/container-context.ts';
import type { ContainerIdentity, ImagePlace, RuncCall } from '../machines/vocabulary.ts';
import { restoreCgroup2Options } from './cgroup2-options.ts';
import { endJob } from './end-job.ts';
import { thawContainer } from './freeze-container.ts';
import { isFrozen } from './freezer.ts';
import type { Host } from './host.ts';
import { isCommitted, pointCurrent } from './image-store.ts';
import { closeLife } from './lives.ts';
import { Problem, reasonOf } from './problem.ts';
import { dropRollback, rollBackRootfs } from './rollback.ts';
import { isInitAlive, isInitEnding, observeContainer, readRuncRecord } from './runc-state.ts';
import { dropScratch } from './scratch.ts';
import { answers } from './share.ts';
import { undoCheckpoint } from './undo-checkpoint.ts';

/**
 * Puts right what a wrapper left that died in the middle of a step: undoes the step, or finishes it where its
 * effect stands already (a committed image), and says in which state the container is.
 */
export async function recover(host: Host, { container, interruption }: ContainerInput): Promise<Recovered> {
  if (!interruption) throw new Error('a recovery was begun without an interruption');
  const { state, step } = interruption;
  host.log.warn({ interruption: { state, step } }, 'recovering');
  await restoreCgroup2Options(host);
  const recovered = await putRight(host, container, interruption).finally(() => dropScratch(host, container));
  host.log.warn(recovered, `recovered: ${recovered.note}`);
  return recovered;
}

async function putRight(
  host: Host,
  container: ContainerIdentity,
  interruption: Interruption,
): Promise<Recovered> {
  switch (interruption.state) {
    case 'alive.checkpointing':
      return recoverCheckpoint(host, container, interruption);
    case 'alive.restoring':
      return recoverRestore(host, container);
    case 'alive.releasing':
      return recoverRelease(host, container);
    case 'alive.pausing':
      return recoverPause(host, container);
    default:
      return {
        status: await observeContainer(host, container),
        note: `${interruption.state} was interrupted`,
      };
  }
}

async function recoverCheckpoint(
  host: Host,
  container: ContainerIdentity,
  { step, child }: Interruption,
): Promise<Recovered> {
  const { image, request, call, wasPaused, pausedForCheckpoint, life } = (child ??
    {}) as Partial<CheckpointContext>;
  if (!request || !call)
    return { status: await observeContainer(host, container), note: 'no step had begun' };
  let note = 'the interrupted checkpoint was undone';
  const known = image === undefined ? false : await whetherCommitted(host, container, image);
  const committed = known ? image : undefined;
  if (known === undefined)
    note = `whether image ${image?.generation} was committed cannot be told, its place is out of reach: the job runs on`;
  if (committed) {
    try {
      pointCurrent(container, committed);
    } catch (error) {
      // For people alone; a job that is frozen must not wait for it.
      host.log.warn({ reason: reasonOf(error) }, 'current does not name the newest image');
    }
    note = `image ${committed.generation} was committed: the job runs on`;
  }
  if (committed && !request.leaveRunning) {
    if (step === 'endingJob' && !readRuncRecord(container)) {
      await closeLife(host, container, committed, 'checkpointed');
      return {
        status: 'checkpointed',
        note: `image ${committed.generation} was committed and the job ended`,
      };
    }
    // The job waits frozen for its end since it was dumped. One that has run on is ahead of its image; one that is gone
    // by now was killed by the wrapper's runc, which its guardian has ended in the middle.
    const isHeld = (step === 'committing' || step === 'endingJob') && isHeldFrozen(container);
    if (isHeld || (step === 'endingJob' && isEnding(container))) {
      try {
        await endJob(host, container, call);
        await closeLife(host, container, committed, 'checkpointed');
        return {
          status: 'checkpointed',
          note: `image ${committed.generation} was committed: the job was ended`,
        };
      } catch (error) {
        note = `image ${committed.generation} was committed, but the job could not be ended: ${reasonOf(error)}`;
      }
    }
  }
  const interrupted = {
    container,
    request,
    call,
    wasPaused: wasPaused ?? false,
    pausedForCheckpoint,
    life,
    image,
  };
  try {
    await undoCheckpoint(host, interrupted);
  } catch (error) {
    // The job runs; what is left of the image goes with its next one.
    host.log.warn({ reason: reasonOf(error) }, 'cannot remove what the interrupted checkpoint has left');
  }
  const status = await observeContainer(host, container);
  return { status, note, ...(pausedForCheckpoint ? { awaitsResume: true } : {}) };
}

/** Undefined where it cannot be told. */
async function whetherCommitted(
  host: Host,
  container: ContainerIdentity,
  image: ImagePlace,
): Promise<boolean | undefined> {
  if (!(await answers(host, container.imageRoot))) return undefined;
  try {
    return isCommitted(container, image);
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, 'the ledger cannot be read');
    return undefined;
  }
}

function isHeldFrozen(container: ContainerIdentity): boolean {
  const record = readRuncRecord(container);
  return record?.freezer !== undefined && isInitAlive(record) && isFrozen(record.freezer);
}

function isEnding(container: ContainerIdentity): boolean {
  const record = readRuncRecord(container);
  return record === undefined || isInitEnding(record);
}

/**
 * Ends a container whose `create` was interrupted, and whose caller is gone: nobody will start it.
 *
 * @returns whether it is gone; not where somebody has started it all the same.
 */
export async function endUnanswered(host: Host, input: ContainerInput): Promise<boolean> {
  const { container, interruption } = input;
  if (interruption?.state === 'alive.restoring') {
    await recover(host, input);
    return true;
  }
  const status = await observeContainer(host, container);
  if (status === 'running' || status === 'paused') return false;
  await endJob(host, container, callFor(container));
  return true;
}

/** A call of Tardis's own, where the caller's is not known any more. */
const callFor = ({ root }: ContainerIdentity): RuncCall => ({
  argv: [],
  globals: ['--root', root],
  switches: [],
  restoreFlags: [],
});

/** How a rollback of an overlay's changes is refused where there is no overlay any more. */
const isNotMounted: ReadonlySet<string> = new Set(['rootfs-kind', 'rootfs-missing']);

/** The caller was never answered, so it does not take the container for created: nothing of it may stay. */
async function recoverRestore(host: Host, container: ContainerIdentity): Promise<Recovered> {
  await endJob(host, container, callFor(container));
  try {
    await rollBackRootfs(host, container);
  } catch (error) {
    if (!(error instanceof Problem && isNotMounted.has(error.code))) throw error;
    // Nobody can start anything on it: its engine has unmounted it. What was saved of it stays for a create that comes back.
    const note =
      'the interrupted restore was ended; its root file system is not mounted any more: the next create in its bundle ' +
      'puts it back';
    return { status: 'gone', note };
  }
  await dropRollback(host, container);
  return { status: 'gone', note: 'the interrupted restore was rolled back' };
}

/**
 * An engine whose pause was never answered takes the task for running, and resumes it no more (containerd's shim: "cannot
 * resume a running process"): it would stand still for good.
 */
async function recoverPause(host: Host, container: ContainerIdentity): Promise<Recovered> {
  thawContainer(container);
  const status = await observeContainer(host, container);
  return { status, note: 'the interrupted pause was undone', awaitsResume: true };
}

/** Where the held container is frozen still, the next `start` lets it go. */
async function recoverRelease(host: Host, container: ContainerIdentity): Promise<Recovered> {
  const status = await observeContainer(host, container);
  if (status === 'paused') return { status: 'restored', note: 'the restored container is still held' };
  return { status, note: 'the restored container had been let go' };
}
