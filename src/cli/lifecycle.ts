import type { Snapshot } from 'xstate';
import { createActor, waitFor } from 'xstate';
import { enterIndex, leaveIndex } from '../actions/container-index.ts';
import { removeLitter } from '../actions/delete-container.ts';
import { forgetMarks } from '../actions/ending.ts';
import { thawContainer } from '../actions/freeze-container.ts';
import type { Host } from '../actions/host.ts';
import { type Lock, takeLock } from '../actions/lock.ts';
import { Problem, reasonOf } from '../actions/problem.ts';
import { giveUpLife } from '../actions/retention.ts';
import { dropRollback, isRollbackPending, rollBackRootfs } from '../actions/rollback.ts';
import { removeEmptyCgroups } from '../actions/runc-leftovers.ts';
import { observeContainer } from '../actions/runc-state.ts';
import { dropScratch } from '../actions/scratch.ts';
import { provideServices } from '../actions/services.ts';
import {
  type HistoryEntry,
  machineVersion,
  readState,
  type StateRecord,
  stateFileOf,
  stateSchemaVersion,
  writeState,
} from '../actions/state-file.ts';
import type { ContainerEvent, Interruption } from '../machines/container-context.ts';
import { nextEvents } from '../machines/next-events.ts';
import { interruptionIn, pathOf, refusalOf } from '../machines/paths.ts';
import type { Answer, ContainerIdentity, ImagePlace, Life } from '../machines/vocabulary.ts';

/** Commands that begin a container's life: what an earlier container left in the bundle means nothing to them. */
const beginnings: ReadonlySet<ContainerEvent['type']> = new Set(['CREATE', 'RUN', 'RESTORE']);

/** How long a forced delete waits for another command that is at work on the container; what that was doing is lost then. */
const forcedDeleteSeconds = 3;

/** What is to be gone need not be waited for. */
const isForcedDelete = (event: ContainerEvent): boolean =>
  event.type === 'DELETE' && event.call.switches.includes('force');

/**
 * Carries one command out on one container: lock, load, recover if need be, one event, run until the machine
 * rests, and write down where it rests.
 *
 * @param lockTimeoutSeconds 0 for a command that must not wait.
 * @throws Problem `refused` where the machine does not allow the event; `locked`, `state-...`, or the file
 * system's own error where nothing has been done yet, so that the real runc may take over.
 */
export async function carryOut(
  host: Host,
  container: ContainerIdentity,
  event: ContainerEvent,
  lockTimeoutSeconds: number,
): Promise<Answer> {
  const lock = lockFor(host, container, event, lockTimeoutSeconds);
  let gone = false;
  try {
    const known = beginnings.has(event.type) ? undefined : readState(stateFileOf(container.bundle));
    const refused = known ? undefined : await rollPredecessorBack(host, container);
    if (refused) return refused;
    if (!known) {
      forgetMarks(container);
      dropScratch(host, container);
    }
    // A wrapper may have died between its last word and what follows here.
    gone = known !== undefined && pathOf(known.snapshot.value) === 'deleted';
    const held = { ...host, locks: [lock.descriptor] };
    const { answer, state, life } = await live(held, known ?? container, known, event);
    const neverWas = state === 'alive.failed' && beginnings.has(event.type);
    if (neverWas) {
      await removeLitter(container);
      // A runc that was killed leaves them, and no later one knows of them.
      await removeEmptyCgroups(container).catch(() => {});
      if (life && 'epoch' in life) await giveUpLife(host, container, life, 'killed');
    }
    gone = state === 'deleted' || neverWas;
    return answer;
  } finally {
    if (gone) {
      leaveIndex(host.config.runDir, container);
      lock.discard();
    } else lock.release();
  }
}

/** @throws see {@link takeLock}; a container that is to be gone, and that runc then deletes alone, is thawed. */
function lockFor(
  host: Host,
  container: ContainerIdentity,
  event: ContainerEvent,
  lockTimeoutSeconds: number,
): Lock {
  const isForced = isForcedDelete(event);
  try {
    return takeLock(host.config.runDir, container.root, container.id, {
      timeoutSeconds: lockTimeoutSeconds,
      // What a dead wrapper has left at work is given the time that it would have without progress.
      orphanSeconds: Math.min(lockTimeoutSeconds, host.config.freezeStallSeconds),
      ...(isForced ? { wrapperSeconds: forcedDeleteSeconds } : {}),
      onOrphans: (pids) => host.log.warn({ pids }, 'ended what was at work on the container'),
    });
  } catch (error) {
    if (isForced) thawContainer(container);
    throw error;
  }
}

/**
 * A bundle in which a restore was neither finished nor rolled back, and which is used again: its root file system is
 * put right first. Nothing is started on half of one, neither by Tardis nor by runc.
 *
 * @returns the answer to the caller where that fails.
 */
async function rollPredecessorBack(host: Host, container: ContainerIdentity): Promise<Answer | undefined> {
  if (!isRollbackPending(host, container)) return undefined;
  host.log.warn('an earlier restore in this bundle was not finished: its root file system is put back first');
  try {
    await rollBackRootfs(host, container);
    await dropRollback(host, container);
    return undefined;
  } catch (error) {
    return { status: 1, message: `the root file system could not be put back: ${reasonOf(error)}` };
  }
}

async function live(
  host: Host,
  { id, root, bundle, key, imageRoot }: ContainerIdentity,
  known: StateRecord | undefined,
  event: ContainerEvent,
): Promise<{ answer: Answer; state: string; life: Life | undefined }> {
  const container: ContainerIdentity = { id, root, bundle, key, imageRoot };
  const interruption = known && interruptionIn(known.snapshot);
  const journal = new Journal(host, container, known);
  const machine = provideServices(host, () => journal.note());
  // XState finds out about a state that it does not know too late, and asynchronously.
  if (known && nextEvents(machine, pathOf(known.snapshot.value)) === undefined) {
    throw new Problem('state-unknown', `${stateFileOf(bundle)} is in a state that this Tardis does not know`);
  }
  const actor = createActor(machine, {
    input: {
      container,
      ...(interruption
        ? {
            interruption,
            image: known?.snapshot.context.image as ImagePlace | undefined,
            life: known?.snapshot.context.life as Life | undefined,
          }
        : {}),
    },
    ...(known && !interruption ? { snapshot: known.snapshot as unknown as Snapshot<unknown> } : {}),
  });
  journal.follow(actor, interruption);
  actor.subscribe({ next: () => journal.note(), error: () => {} });
  actor.start();
  const rests = () =>
    waitFor(actor, (snapshot) => snapshot.hasTag('resting'), { timeout: Number.POSITIVE_INFINITY });
  await rests();

  if (event.type === 'CHECKPOINT')
    actor.send({ type: 'OBSERVED', status: await observeContainer(host, container) });
  const snapshot = actor.getSnapshot();
  if (!snapshot.can(event)) throw new Problem('refused', refusalOf(event, snapshot.value));

  // From here on a wrapper that dies is found out; what cannot be written down is not begun.
  journal.write();
  if (beginnings.has(event.type)) enterIndex(host.config.runDir, container);
  const before = snapshot.context.failure;
  journal.expect(event.type);
  actor.send(event);
  const { context, value } = await rests();
  if (context.failure && context.failure !== before)
    host.log.warn({ failure: context.failure, state: pathOf(value) }, context.failure.message);
  actor.stop();
  return { answer: context.answer, state: pathOf(value), life: context.life };
}

type Actor = ReturnType<typeof createActor<ReturnType<typeof provideServices>>>;

/** Writes every state down before its work is begun, with how long the one before it took. */
class Journal {
  readonly #host: Host;
  readonly #container: ContainerIdentity;
  readonly #history: HistoryEntry[];
  #actor: Actor | undefined;
  #event = 'LOADED';
  #at = performance.now();
  #path = 'new';

  constructor(host: Host, container: ContainerIdentity, known: StateRecord | undefined) {
    this.#host = host;
    this.#container = container;
    this.#history = known ? [...known.history] : [];
    if (known) this.#path = pathOf(known.snapshot.value, known.snapshot);
  }

  follow(actor: Actor, interruption: Interruption | undefined): void {
    this.#actor = actor;
    if (interruption) this.#event = 'INTERRUPTED';
  }

  expect(event: string): void {
    this.#event = event;
    this.#at = performance.now();
    if (event === 'KILL') this.#enter(this.#path);
  }

  /** Notes a new state, and writes it down; a disk that is full now must not stop what is under way. */
  note(): void {
    const snapshot = this.#snapshot();
    if (!snapshot) return;
    const path = pathOf(snapshot.value, snapshot);
    if (path !== this.#path) this.#enter(path);
    try {
      this.write(snapshot);
    } catch (error) {
      this.#host.log.error({ reason: reasonOf(error) }, 'cannot write the state file');
    }
  }

  #snapshot(): StateRecord['snapshot'] | undefined {
    return this.#actor?.getPersistedSnapshot() as unknown as StateRecord['snapshot'] | undefined;
  }

  #enter(path: string): void {
    const now = performance.now();
    const entry = { from: this.#path, to: path, ms: Math.round((now - this.#at) * 10) / 10 };
    this.#history.push({ at: new Date().toISOString(), event: this.#event, ...entry });
    this.#host.log.info({ event: this.#event, ...entry }, `${entry.from} → ${entry.to}`);
    this.#path = path;
    this.#at = now;
  }

  /** @throws the file system's own error. */
  write(snapshot = this.#snapshot()): void {
    writeState({
      schemaVersion: stateSchemaVersion,
      machineVersion,
      ...this.#container,
      snapshot: snapshot as StateRecord['snapshot'],
      history: this.#history,
    });
  }
}
