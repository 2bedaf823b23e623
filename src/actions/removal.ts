import fs from 'node:fs';
import type { Host } from './host.ts';
import {
  ageOf,
  appendEntry,
  type Entry,
  type Ledger,
  type NewEntry,
  readLedger,
  removeEntries,
  removeLedger,
} from './ledger.ts';
import { isAtWork, isSameBefore, thisHost } from './lives.ts';
import { processStartTime } from './runc-state.ts';

type RemovalEntry = Extract<Entry, { kind: 'removal' }>;

/** How long another host may take for a removal before that counts as cut short. */
export const removingSeconds = 3600;

/** The latest removal that was noted in a ledger. */
export const latestRemoval = ({ entries }: Ledger): RemovalEntry | undefined =>
  entries.findLast((entry): entry is RemovalEntry => entry.kind === 'removal');

/**
 * Whether somebody is at work on a removal that is noted: a process of this host, or perhaps one of another. While one is, no
 * other removes a ledger, so a number in it means the same entry for as long.
 *
 * @param now of the file system's clock, in milliseconds, where it has been read already.
 */
export function isBeingRemoved(
  host: Pick<Host, 'config'>,
  home: string,
  ledger: Ledger,
  now?: number,
): boolean {
  const removal = latestRemoval(ledger);
  if (!removal) return false;
  if (removal.host === thisHost(host)) return isAtWork(removal.remover);
  return ageOf(home, removal, now) < removingSeconds;
}

/**
 * Notes that images are about to be removed, or the ledger itself, right after the last entry that was read.
 *
 * @returns the entry's number; undefined where somebody has been at the key meanwhile.
 * @throws the file system's own error.
 */
export function noteRemoval(
  host: Pick<Host, 'config'>,
  home: string,
  ledger: Ledger,
  generations: readonly number[],
): number | undefined {
  const { pid } = process;
  const entry: NewEntry = {
    kind: 'removal',
    generations: [...generations],
    host: thisHost(host),
    remover: { pid, startTime: processStartTime(pid) ?? 0 },
  };
  const number = appendEntry(home, ledger.last, entry, { durable: generations.length > 0 });
  if (number === undefined) return undefined;
  // As with a claim: the ledger may have been removed, and begun anew, since it was read.
  if (isSameBefore(ledger, readLedger(home), number)) return number;
  removeEntries(home, [number]);
  return undefined;
}

/** Whether a removal is the one that this process has noted. */
export const isOwnRemoval = (host: Pick<Host, 'config'>, { entries }: Ledger, noted: number): boolean =>
  entries.some(
    (entry) =>
      entry.number === noted &&
      entry.kind === 'removal' &&
      entry.host === thisHost(host) &&
      entry.remover.pid === process.pid,
  );

/**
 * Removes a key's ledger and directory, where nothing else is in it, and nobody has come to it since the removal was noted.
 *
 * @param read the ledger that it was noted after.
 * @throws the file system's own error.
 */
export function forgetKey(host: Pick<Host, 'config'>, home: string, read: Ledger, noted: number): void {
  const now = readLedger(home);
  const isLast = now.last === noted && now.unknown === 0 && isOwnRemoval(host, now, noted);
  if (!isLast || !isSameBefore(read, now, noted)) return;
  if (fs.readdirSync(home).some((name) => name !== 'ledger')) return;
  try {
    removeLedger(home, now);
    fs.rmdirSync(home);
  } catch (error) {
    // Somebody has taken the job up, or is about to.
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
