import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { awaitFrozen, beginFreeze, freezerOf, thaw } from './freezer.ts';
import { isInitAlive, readRuncRecord } from './runc-state.ts';

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

/** Lets a container go on; harmless where it runs, and where it is gone. */
export function thawContainer(container: ContainerIdentity): void {
  const record = readRuncRecord(container);
  if (record?.freezer && isInitAlive(record)) thaw(record.freezer);
}
