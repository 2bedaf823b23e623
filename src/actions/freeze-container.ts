import { setTimeout as delay } from 'node:timers/promises';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { awaitFrozen, beginFreeze, freezerOf, isFrozen, patienceMs, thaw } from './freezer.ts';
import { Problem } from './problem.ts';
import { isInitAlive, readRuncRecord } from './runc-state.ts';
import { tasksInVfork } from './vfork.ts';

/**
 * Freezes every task of a container; harmless where it is frozen already.
 *
 * @throws Problem `freezer` where a task cannot be frozen, or runc does not know the container.
 */
export async function freezeContainer(container: ContainerIdentity): Promise<void> {
  const freezer = freezerOf(readRuncRecord(container));
  beginFreeze(freezer);
  await awaitFrozen(freezer);
}

/**
 * Freezes every task of a container in a moment in which none is between vfork(2) and the start of its child's program:
 * CRIU cannot dump one there. A container in such a moment, a paused one too, runs until it is over.
 *
 * @throws Problem `freezer` where a task cannot be frozen, is there for ten seconds, or runc does not know the container.
 */
export async function freezeForDump(container: ContainerIdentity): Promise<void> {
  const freezer = freezerOf(readRuncRecord(container));
  const deadline = Date.now() + patienceMs;
  for (;;) {
    await freezeContainer(container);
    let [starting] = tasksInVfork(freezer.directory);
    if (starting === undefined) return;
    thaw(freezer);
    for (; starting !== undefined; [starting] = tasksInVfork(freezer.directory)) {
      if (Date.now() > deadline) {
        throw new Problem(
          'freezer',
          `task ${starting} of the container waits in vfork(2) for a program that it starts: expected an end of it within ${patienceMs / 1000} s, CRIU cannot dump it there; try again when it has started`,
        );
      }
      await delay(1);
    }
  }
}

/**
 * Makes sure that a container is frozen still: its guardian thaws it where this process has slept for too long, and
 * others may, too.
 *
 * @throws Problem `freezer`
 */
export function demandFrozen(container: ContainerIdentity): void {
  const freezer = freezerOf(readRuncRecord(container));
  if (isFrozen(freezer)) return;
  throw new Problem(
    'freezer',
    'the container has run on since it was frozen for its checkpoint (its guardian thaws it after freezeStallSeconds ' +
      'without a sign of this process): the image may not fit its files; try again',
  );
}

/** Lets a container go on; harmless where it runs, and where it is gone. */
export function thawContainer(container: ContainerIdentity): void {
  const record = readRuncRecord(container);
  if (record?.freezer && isInitAlive(record)) thaw(record.freezer);
}
