import fs from 'node:fs';
import { join } from 'node:path';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import * as z from './schema.ts';

/**
 * The ledger of one checkpoint key, `<imageRoot>/<key>/ledger/<number>`: who carries the job on, what images there are,
 * and how lives ended, in one order that all hosts agree on.
 *
 * An entry is added by link(2) to the next number: whoever comes second gets EEXIST, also over NFS, and has to read
 * what came between. So an entry is a compare-and-swap on everything before it: what was read still holds.
 */
const claimantSchema = z.object({
  /** {@link thisHost} of the wrapper that claimed the life. */
  host: z.string(),
  root: z.string(),
  id: z.string(),
  /** Which claim this is, of all that there ever are: numbers begin at one again where a ledger was removed. */
  claim: z.optional(z.string()),
  /** The wrapper itself, while runc has no record of the container yet. */
  wrapper: z.object({ pid: z.number(), startTime: z.number() }),
});

const entrySchema = z.discriminatedUnion('kind', [
  /** A container takes the job up. Its own number is the epoch. */
  z.object({ kind: z.literal('life'), at: z.string(), claimant: claimantSchema }),
  /** A life committed an image. */
  z.object({
    kind: z.literal('image'),
    at: z.string(),
    epoch: z.number(),
    generation: z.number(),
  }),
  /** A restore of an image was begun, and it came to its end: those that did not have failed. */
  z.object({ kind: z.literal('attempt'), at: z.string(), epoch: z.number(), generation: z.number() }),
  z.object({ kind: z.literal('restored'), at: z.string(), epoch: z.number(), generation: z.number() }),
  /** CRIU could not restore an image on a host. */
  z.object({
    kind: z.literal('failed'),
    at: z.string(),
    epoch: z.number(),
    generation: z.number(),
    host: z.string(),
  }),
  /** A life is over, and how. */
  z.object({
    kind: z.literal('end'),
    at: z.string(),
    epoch: z.number(),
    how: z.enum(['checkpointed', 'killed', 'failed', 'finished']),
    /** The job's own TARDIS_RESUME_AFTER. Absent where it is not known: an earlier Tardis did not note it. */
    resumeAfter: z.optional(z.string()),
  }),
  /**
   * Images are about to be removed, because nobody needs them any more: no container is restored from them from here on.
   * Whoever had taken the job up before makes this entry impossible.
   */
  z.object({
    kind: z.literal('removal'),
    at: z.string(),
    generations: z.array(z.number()),
    /** Who removes them. */
    host: z.string(),
    remover: z.object({ pid: z.number(), startTime: z.number() }),
  }),
]);

export type Claimant = z.infer<typeof claimantSchema>;
type Body<Kind> = Omit<Extract<z.infer<typeof entrySchema>, { kind: Kind }>, 'at'>;
export type NewEntry =
  | Body<'life'>
  | Body<'image'>
  | Body<'attempt'>
  | Body<'restored'>
  | Body<'failed'>
  | Body<'end'>
  | Body<'removal'>;
export type Entry = z.infer<typeof entrySchema> & { readonly number: number };
export type Ending = Extract<Entry, { kind: 'end' }>['how'];

/** All entries of a ledger, the oldest first. */
export interface Ledger {
  readonly entries: readonly Entry[];
  /**
   * The last number that cannot be understood, 0 where there is none: it was linked whole, so a later Tardis wrote it, or a
   * host went down before it was on the disk. It counts as somebody else's life.
   */
  readonly unknown: number;
  /** The number of the last entry, readable or not; 0 where there is none. */
  readonly last: number;
}

/** The directory of a checkpoint key: its ledger, its images, and `current`, which names the newest one for people. */
export const keyDirectory = ({ imageRoot, key }: Pick<ContainerIdentity, 'imageRoot' | 'key'>): string =>
  join(imageRoot, key);

const directoryOf = (home: string): string => join(home, 'ledger');

/**
 * Reads a key's ledger; one that is not there is empty.
 *
 * @param home the key's directory.
 * @throws the file system's own error: an entry that cannot be read is not an entry that is not there.
 */
export function readLedger(home: string): Ledger {
  const numbers = namesIn(directoryOf(home))
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .sort((a, b) => a - b);
  let unknown = 0;
  const entries = numbers.flatMap((number): Entry[] => {
    const text = textOf(join(directoryOf(home), String(number)));
    // Removed since its name was read: nobody needs it any more.
    if (text === undefined) return [];
    try {
      return [{ ...entrySchema.parse(JSON.parse(text)), number }];
    } catch {
      unknown = number;
      return [];
    }
  });
  return { entries, unknown, last: numbers.at(-1) ?? 0 };
}

/**
 * Adds an entry right after the last one that the caller has read.
 *
 * @param durable whether it must be on the disk when this returns.
 * @returns its number, or undefined where somebody else was first.
 * @throws the file system's own error.
 */
export function appendEntry(
  home: string,
  after: number,
  entry: NewEntry,
  { durable = false }: { readonly durable?: boolean } = {},
): number | undefined {
  for (let tries = 1; ; tries++) {
    try {
      return append(home, after, entry, durable);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Somebody has removed an empty ledger under our hands; or there is room for this, and only for this.
      const mayRetry = code === 'ENOENT' || (isFull(error) && freeReserve(home));
      if (!mayRetry || tries === 5) throw error;
    }
  }
}

function append(home: string, after: number, entry: NewEntry, durable: boolean): number | undefined {
  const directory = directoryOf(home);
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  const draft = join(directory, `draft.${process.pid}.${Math.random().toString(36).slice(2)}`);
  const number = after + 1;
  try {
    const fd = fs.openSync(draft, 'wx', 0o600);
    try {
      fs.writeSync(fd, `${JSON.stringify({ ...entry, at: new Date().toISOString() })}\n`);
      if (durable) fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    try {
      fs.linkSync(draft, join(directory, String(number)));
    } catch (error) {
      // The answer of an NFS server may get lost, and the repeated request find its own link (open(2), O_EXCL).
      const isOurs = fs.statSync(draft).nlink === 2;
      if (!isOurs && (error as NodeJS.ErrnoException).code === 'EEXIST') return undefined;
      if (!isOurs) throw error;
    }
    if (durable) syncDirectory(directory);
    return number;
  } finally {
    fs.rmSync(draft, { force: true });
  }
}

const reserveOf = (home: string): string => join(directoryOf(home), 'reserve');

/** Room for a few entries: four blocks of most file systems. */
const reserveBytes = 16 << 10;

/** Keeps room for entries on a disk that others fill. Failing to fails nothing. */
export function keepReserve(home: string): void {
  try {
    fs.writeFileSync(reserveOf(home), Buffer.alloc(reserveBytes, 1), { flag: 'wx', mode: 0o600 });
  } catch {
    // It is there, or there is no room for it.
  }
}

/** Whether there was room in reserve, which is free now. */
function freeReserve(home: string): boolean {
  try {
    fs.rmSync(reserveOf(home));
    return true;
  } catch {
    return false;
  }
}

/** Adds an entry that holds whatever came before it. */
export function noteEntry(home: string, entry: NewEntry): void {
  while (appendEntry(home, readLedger(home).last, entry) === undefined);
}

/**
 * Seconds since an entry was linked, by the clock of the file system that it is on: hosts may disagree on the time.
 *
 * @param now that clock, where it has been read already.
 */
export function ageOf(home: string, { number }: Pick<Entry, 'number'>, now?: number): number {
  const directory = directoryOf(home);
  return ageIn(directory, String(number), now ?? clockOf(directory));
}

/** Now, in milliseconds of a directory's file system. */
export function clockOf(directory: string): number {
  const probe = join(directory, `draft.${process.pid}.now`);
  try {
    fs.writeFileSync(probe, '');
    return fs.statSync(probe).mtimeMs;
  } catch (error) {
    if (!isFull(error)) throw error;
    // A change that needs no room: inode(7), ctime.
    fs.chmodSync(directory, fs.statSync(directory).mode & 0o7777);
    return fs.statSync(directory).ctimeMs;
  } finally {
    fs.rmSync(probe, { force: true });
  }
}

/** No room, no inode, or no quota left. */
const isFull = (error: unknown): boolean =>
  ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '');

const ageIn = (directory: string, name: string, now: number): number =>
  (now - fs.statSync(join(directory, name)).mtimeMs) / 1000;

/** A draft lives for as long as it takes to link it; one that is older is of a wrapper that was killed. */
const draftSeconds = 600;

/**
 * Removes the drafts that killed wrappers have left.
 *
 * @throws the file system's own error.
 */
export function sweepDrafts(home: string): void {
  const directory = directoryOf(home);
  const drafts = namesIn(directory).filter((name) => name.startsWith('draft.'));
  if (drafts.length === 0) return;
  const now = clockOf(directory);
  for (const name of drafts) {
    try {
      if (ageIn(directory, name, now) > draftSeconds) fs.rmSync(join(directory, name), { force: true });
    } catch (error) {
      // Somebody has linked or removed it meanwhile.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}

/** Removes entries; those that are left stay in their order. */
export function removeEntries(home: string, numbers: readonly number[]): void {
  for (const number of numbers) fs.rmSync(join(directoryOf(home), String(number)), { force: true });
}

/**
 * Removes the entries of a ledger that were read; one that is added meanwhile stays, and with it the directory. A life goes
 * before its end: one that has ended must not look as if it went on, should this be cut short.
 *
 * @throws the file system's own error: ENOTEMPTY where somebody has added one.
 */
export function removeLedger(home: string, { entries }: Ledger): void {
  removeEntries(
    home,
    entries.map(({ number }) => number),
  );
  sweepDrafts(home);
  freeReserve(home);
  fs.rmdirSync(directoryOf(home));
}

/** Makes a directory's own changes durable: names that were made, renamed, or removed in it. */
export function syncDirectory(path: string): void {
  const fd = fs.openSync(path, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function namesIn(directory: string): string[] {
  try {
    return fs.readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** A file's text; undefined where there is none. */
function textOf(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
