import fs, { readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { RestoreInput } from '../machines/restore.ts';
import type { ContainerIdentity, Life } from '../machines/vocabulary.ts';
import { bootId } from './boot-id.ts';
import type { ResumeAfter } from './container-config.ts';
import type { Host } from './host.ts';
import {
  ageOf,
  appendEntry,
  type Claimant,
  type Ending,
  type Entry,
  keyDirectory,
  type Ledger,
  noteEntry,
  readLedger,
  removeEntries,
} from './ledger.ts';
import { Problem, reasonOf } from './problem.ts';
import { isInitAlive, processStartTime, readRuncRecord } from './runc-state.ts';
import { demandAnswer } from './share.ts';

export type LifeEntry = Extract<Entry, { kind: 'life' }>;

/** What tells one claim of a job from all others. */
export type Claim = { readonly epoch: number; readonly claim?: string | undefined };

/**
 * This host, as long as it is up: by its boot and the pid namespace that pids are told in. `hostId` in the host's
 * settings replaces it.
 */
export function thisHost({ config }: Pick<Host, 'config'>): string {
  if (config.hostId) return config.hostId;
  return `${bootId()}/${readlinkSync('/proc/self/ns/pid')}`;
}

/** Whether a life is the one of a claim. Numbers alone do not tell: a ledger without images is removed with its container. */
export const isOf = (life: LifeEntry | undefined, { epoch, claim }: Claim): life is LifeEntry =>
  life?.number === epoch && (claim === undefined || life.claimant.claim === claim);

/** The life that holds the job: the latest one. An entry that cannot be understood counts as a stranger's. */
export const latestLife = ({ entries, unknown }: Ledger): LifeEntry | undefined => {
  const latest = entries.findLast((entry) => entry.kind === 'life');
  return unknown > (latest?.number ?? 0) ? strangerAt(unknown) : latest;
};

const strangerAt = (number: number): LifeEntry => ({
  kind: 'life',
  number,
  at: 'a time that cannot be read',
  claimant: { host: 'not known', root: '', id: 'not known', wrapper: { pid: 0, startTime: 0 } },
});

export const hasEnded = ({ entries }: Ledger, { number }: LifeEntry): boolean =>
  entries.some((entry) => entry.kind === 'end' && entry.epoch === number);

/**
 * Takes the job up for a container: raises the key's epoch, unless another container is carrying the job on.
 *
 * Of any number that try at once, on any hosts, one succeeds. A life that has ended, or whose container is gone from
 * this host, gives way; one on another host cannot be asked, and gives way once it is older than
 * `takeoverAfterSeconds`: its host is thought dead then, and whatever it does later is refused ({@link checkLife}).
 *
 * @throws the file system's own error.
 */
export function claimLife(host: Host, container: ContainerIdentity): Life {
  const home = keyDirectory(container);
  for (;;) {
    const ledger = readLedger(home);
    const holder = latestLife(ledger);
    const rival = holder && !hasEnded(ledger, holder) ? rivalIn(host, container, home, holder) : undefined;
    if (rival === 'gone') continue;
    if (rival === 'itself' && holder) return lifeOf(holder);
    if (rival) return { refused: rival };
    const claimant = claimantOf(host, container);
    const epoch = appendEntry(home, ledger.last, { kind: 'life', claimant });
    if (epoch === undefined) continue;
    // An ended ledger may have been removed and begun anew since it was read, by this container or by another: the number
    // says nothing then. Of two that meet so, whoever looks last sees the other, and gives way.
    const now = readLedger(home);
    const own = { epoch, claim: claimant.claim };
    if (isSameBefore(ledger, now, epoch) && isOf(latestLife(now), own)) {
      compactLedger(home, now);
      return own;
    }
    removeEntries(home, [epoch]);
  }
}

const lifeOf = ({ number, claimant }: LifeEntry): Life => ({
  epoch: number,
  ...(claimant.claim === undefined ? {} : { claim: claimant.claim }),
});

/** Whether nothing stands before a number but what was read; entries that were compacted since may be missing. */
export function isSameBefore(read: Ledger, now: Ledger, number: number): boolean {
  const known = new Set(read.entries.map(identityOf));
  return now.entries.every((entry) => entry.number >= number || known.has(identityOf(entry)));
}

const identityOf = ({ number, at, kind }: Entry): string => `${number} ${kind} ${at}`;

/**
 * Removes the entries that nobody needs any more, so that a ledger does not grow with restarts. What stays: the images
 * that are there; the latest life and what it has begun; of the images, which restores failed or were cut short, and the
 * endings that concern them; and the last number, whatever it is. Failing to fails nothing.
 *
 * @param known the ledger, where it has just been read.
 */
export function compactLedger(home: string, known?: Ledger): void {
  try {
    const ledger = known ?? readLedger(home);
    const needed = new Set(neededIn(home, ledger));
    removeEntries(
      home,
      ledger.entries.map(({ number }) => number).filter((number) => !needed.has(number)),
    );
  } catch {
    // It is done the next time.
  }
}

function neededIn(home: string, ledger: Ledger): number[] {
  const { entries, last } = ledger;
  const isThere = ({ generation }: { readonly generation: number }): boolean =>
    fs.existsSync(join(home, String(generation)));
  const latest = latestLife(ledger)?.number ?? 0;
  const isNeeded = (entry: Entry): boolean => {
    if (entry.number === last || entry.number >= latest) return true;
    switch (entry.kind) {
      case 'image':
      case 'failed':
        return isThere(entry);
      case 'restored':
        // What a life has continued matters once it has come to an end of its own, which bars that.
        return isThere(entry) && hasFinished(ledger, entry.epoch);
      case 'attempt':
        return isThere(entry) && entry.number > lastRestore(ledger, entry.generation);
      case 'removal':
        return entry.generations.some((generation) => isThere({ generation }));
      case 'end':
        return isFinal(entry.how) && entries.some((other) => isImageOf(entry.epoch, other) && isThere(other));
      default:
        return false;
    }
  };
  return entries.filter(isNeeded).map(({ number }) => number);
}

type OfImage = Extract<Entry, { kind: 'image' | 'restored' }>;

/** Whether an entry names an image that a life has committed, or continued. */
export const isImageOf = (epoch: number, entry: Entry): entry is OfImage =>
  (entry.kind === 'image' || entry.kind === 'restored') && entry.epoch === epoch;

/** The number of the latest restore of an image that came to its end; 0 where none did. */
export const lastRestore = ({ entries }: Ledger, generation: number): number =>
  entries.findLast((entry) => entry.kind === 'restored' && entry.generation === generation)?.number ?? 0;

/** Whether an image that was committed is about to be removed, or has been. */
export const isRemoved = ({ entries }: Ledger, image: Entry & { readonly generation: number }): boolean =>
  entries.some(
    (entry) =>
      entry.kind === 'removal' && entry.number > image.number && entry.generations.includes(image.generation),
  );

/** Endings after which images may be barred: the job has come to them by itself. */
const isFinal = (how: Ending): boolean => how === 'finished' || how === 'failed';

const hasFinished = ({ entries }: Ledger, epoch: number): boolean =>
  entries.some((entry) => entry.kind === 'end' && entry.epoch === epoch && isFinal(entry.how));

function claimantOf(host: Host, { root, id }: ContainerIdentity): Claimant & { readonly claim: string } {
  const startTime = processStartTime(process.pid) ?? 0;
  return {
    host: thisHost(host),
    root,
    id,
    claim: process.getBuiltinModule('node:crypto').randomUUID(),
    wrapper: { pid: process.pid, startTime },
  };
}

/** Whether the container of a life that was claimed on this host is there still, and its init with it. */
function isAlive(claimant: Claimant): boolean {
  const record = readRuncRecord(claimant);
  return record !== undefined && isInitAlive(record);
}

/** Whether another process than this one, of this host, is there still. */
export const isAtWork = ({ pid, startTime }: Claimant['wrapper']): boolean =>
  pid !== process.pid && processStartTime(pid) === startTime;

/** Whether a life that was claimed on this host goes on: its container lives, or is being made. */
export const goesOn = ({ claimant }: LifeEntry): boolean => isAlive(claimant) || isAtWork(claimant.wrapper);

function ageIfThere(home: string, entry: Entry): number | undefined {
  try {
    return ageOf(home, entry);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Why the holder keeps the job; `gone` where its entry is removed meanwhile; undefined where the job may be taken from it. */
function rivalIn(
  host: Host,
  container: ContainerIdentity,
  home: string,
  holder: LifeEntry,
): string | undefined {
  const { claimant, number, at } = holder;
  const isHere = claimant.host === thisHost(host);
  const isSame = isHere && claimant.root === container.root && claimant.id === container.id;
  if (isHere) {
    if (isSame && isAlive(claimant)) return 'itself';
    if (!isAlive(claimant) && !isAtWork(claimant.wrapper)) return undefined;
    return `container ${claimant.id} on this host carries the job on, in epoch ${number} since ${at}`;
  }
  const age = ageIfThere(home, holder);
  if (age === undefined) return 'gone';
  if (age >= host.config.takeoverAfterSeconds) return undefined;
  return (
    `container ${claimant.id} on another host (${claimant.host}) took the job up ${age.toFixed(0)} s ago, in epoch ` +
    `${number}; a host counts as lost ${host.config.takeoverAfterSeconds} s after that (takeoverAfterSeconds)`
  );
}

/**
 * Makes sure that a container may still commit what it has of the job.
 *
 * @returns the ledger that this was read in: a commit right after its last entry is safe.
 * @throws Problem `life-superseded` where another container has taken the job up since.
 */
export function checkLife(container: ContainerIdentity, claim: Claim): Ledger {
  const ledger = readLedger(keyDirectory(container));
  const holder = latestLife(ledger);
  const { root, id } = container;
  if (isOf(holder, claim) && holder.claimant.id === id && holder.claimant.root === root) return ledger;
  const who = holder
    ? `container ${holder.claimant.id} on host ${holder.claimant.host} took the job up in epoch ${holder.number}, at ${holder.at}`
    : 'the ledger of its key is gone';
  throw new Problem(
    'life-superseded',
    `the container carries ${container.key} on in epoch ${claim.epoch}, but ${who}: it cannot commit a checkpoint any ` +
      'more. It runs on; stop it, or give it another TARDIS_CHECKPOINT_KEY if it is another job',
  );
}

/**
 * Notes how a life ended, where nobody has taken the job up since; the next container need not wait then.
 *
 * @param resumeAfter the job's own setting, where it is known.
 * @throws the file system's own error.
 */
export function endLife(
  container: ContainerIdentity,
  claim: Claim,
  how: Ending,
  resumeAfter?: ResumeAfter,
): void {
  const home = keyDirectory(container);
  for (;;) {
    const ledger = readLedger(home);
    const holder = latestLife(ledger);
    if (!isOf(holder, claim) || hasEnded(ledger, holder)) return;
    const { epoch } = claim;
    const end = { kind: 'end', epoch, how, ...(resumeAfter ? { resumeAfter } : {}) } as const;
    if (appendEntry(home, ledger.last, end) === undefined) continue;
    compactLedger(home);
    return;
  }
}

/**
 * {@link endLife}, where failing to note it fails nothing, and no file server that does not answer is waited for: the
 * next container then has to look, or to wait.
 *
 * @returns whether it is noted.
 */
export async function closeLife(
  host: Host,
  container: ContainerIdentity,
  life: Claim,
  how: Ending,
  resumeAfter?: ResumeAfter,
): Promise<boolean> {
  try {
    await demandAnswer(host, container.imageRoot);
    endLife(container, life, how, resumeAfter);
    return true;
  } catch (error) {
    const { epoch } = life;
    host.log.warn(
      { epoch, how, reason: reasonOf(error) },
      `cannot note the end of this life: ${reasonOf(error)}`,
    );
    return false;
  }
}

/**
 * Notes that the restore of an image is begun.
 *
 * @throws Problem `images-unreachable`; the file system's own error.
 */
export async function noteAttempt(host: Host, { container, image, epoch }: RestoreInput): Promise<void> {
  await demandAnswer(host, container.imageRoot);
  if (epoch === undefined) return;
  noteEntry(keyDirectory(container), { kind: 'attempt', epoch, generation: image.generation });
}

/**
 * Notes that the restore of an image has come to its end, or that CRIU could not restore it on this host. Failing to
 * fails nothing: the restore then counts as one that was cut short.
 */
export async function noteOutcome(
  host: Host,
  { container, image, epoch }: RestoreInput,
  kind: 'restored' | 'failed',
): Promise<void> {
  if (epoch === undefined) return;
  const { generation } = image;
  try {
    await demandAnswer(host, container.imageRoot);
    const entry =
      kind === 'failed' ? { kind, epoch, generation, host: thisHost(host) } : { kind, epoch, generation };
    noteEntry(keyDirectory(container), entry);
  } catch (error) {
    host.log.warn(
      { reason: reasonOf(error), kind },
      'cannot note how the restore has ended: it counts as cut short',
    );
  }
}
