import { readlinkSync } from 'node:fs';
import type { RestoreInput } from '../machines/restore.ts';
import type { ContainerIdentity, Life } from '../machines/vocabulary.ts';
import { bootId } from './boot-id.ts';
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
} from './ledger.ts';
import { Problem, reasonOf } from './problem.ts';
import { isInitAlive, processStartTime, readRuncRecord } from './runc-state.ts';
import { demandAnswer } from './share.ts';

type LifeEntry = Extract<Entry, { kind: 'life' }>;

/**
 * This host, as long as it is up: by its boot and the pid namespace that pids are told in. `hostId` in the host's
 * settings replaces it.
 */
export function thisHost({ config }: Pick<Host, 'config'>): string {
  if (config.hostId) return config.hostId;
  return `${bootId()}/${readlinkSync('/proc/self/ns/pid')}`;
}

/** The life that holds the job: the latest one. */
export const latestLife = ({ entries }: Ledger): LifeEntry | undefined =>
  entries.findLast((entry) => entry.kind === 'life');

const hasEnded = ({ entries }: Ledger, { number }: LifeEntry): boolean =>
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
    if (rival === 'itself' && holder) return { epoch: holder.number };
    if (rival) return { refused: rival };
    const epoch = appendEntry(home, ledger.last, { kind: 'life', claimant: claimantOf(host, container) });
    if (epoch !== undefined) return { epoch };
  }
}

function claimantOf(host: Host, { root, id }: ContainerIdentity): Claimant {
  const startTime = processStartTime(process.pid) ?? 0;
  return { host: thisHost(host), root, id, wrapper: { pid: process.pid, startTime } };
}

/** Why the holder keeps the job; undefined where it may be taken from it. */
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
    const record = readRuncRecord(claimant);
    const isAlive = record !== undefined && isInitAlive(record);
    if (isSame && isAlive) return 'itself';
    const { pid, startTime } = claimant.wrapper;
    const isBeingMade = pid !== process.pid && processStartTime(pid) === startTime;
    if (!isAlive && !isBeingMade) return undefined;
    return `container ${claimant.id} on this host carries the job on, in epoch ${number} since ${at}`;
  }
  const age = ageOf(home, holder);
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
export function checkLife(container: ContainerIdentity, epoch: number): Ledger {
  const ledger = readLedger(keyDirectory(container));
  const holder = latestLife(ledger);
  // Numbers alone do not tell lives apart: a ledger without images is removed with its container.
  const { root, id } = container;
  if (holder?.number === epoch && holder.claimant.id === id && holder.claimant.root === root) return ledger;
  const who = holder
    ? `container ${holder.claimant.id} on host ${holder.claimant.host} took the job up in epoch ${holder.number}, at ${holder.at}`
    : 'the ledger of its key is gone';
  throw new Problem(
    'life-superseded',
    `the container carries ${container.key} on in epoch ${epoch}, but ${who}: it cannot commit a checkpoint any ` +
      'more. It runs on; stop it, or give it another TARDIS_CHECKPOINT_KEY if it is another job',
  );
}

/**
 * Notes how a life ended, where nobody has taken the job up since; the next container need not wait then.
 *
 * @throws the file system's own error.
 */
export function endLife(container: ContainerIdentity, epoch: number, how: Ending): void {
  const home = keyDirectory(container);
  for (;;) {
    const ledger = readLedger(home);
    const holder = latestLife(ledger);
    if (holder?.number !== epoch || hasEnded(ledger, holder)) return;
    if (appendEntry(home, ledger.last, { kind: 'end', epoch, how }) !== undefined) return;
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
  epoch: number,
  how: Ending,
): Promise<boolean> {
  try {
    await demandAnswer(host, container.imageRoot);
    endLife(container, epoch, how);
    return true;
  } catch (error) {
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

/** Notes that the restore of an image has come to its end. Where that fails it counts as one that has not. */
export async function noteRestored(host: Host, { container, image, epoch }: RestoreInput): Promise<void> {
  if (epoch === undefined) return;
  try {
    await demandAnswer(host, container.imageRoot);
    noteEntry(keyDirectory(container), { kind: 'restored', epoch, generation: image.generation });
  } catch (error) {
    host.log.warn(
      { reason: reasonOf(error) },
      'cannot note that the image was restored: it counts as an attempt that failed',
    );
  }
}
