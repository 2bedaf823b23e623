import { keyDirectory, readLedger } from '../../actions/ledger.ts';
import { latestLife } from '../../actions/lives.ts';
import type { StateRecord } from '../../actions/state-file.ts';

/** A container's place in the life of its job. */
export interface LifeReport {
  /** The epoch in which it carries the job on; null where it must not. */
  readonly epoch: number | null;
  /** Why it must not carry the job on; null where it may. */
  readonly refused: string | null;
  /** The epoch that the ledger names last: a later one than its own supersedes it. Null where there is none to read. */
  readonly latestEpoch: number | null;
}

/** Says what a state file and the ledger of its key hold; changes nothing, and throws nothing. */
export function reportLife(
  state: Pick<StateRecord, 'imageRoot' | 'key'>,
  life: { readonly epoch?: number | undefined; readonly refused?: string | undefined },
): LifeReport {
  return { epoch: life.epoch ?? null, refused: life.refused ?? null, latestEpoch: latestEpochOf(state) };
}

function latestEpochOf(state: Pick<StateRecord, 'imageRoot' | 'key'>): number | null {
  try {
    return latestLife(readLedger(keyDirectory(state)))?.number ?? null;
  } catch {
    return null;
  }
}
