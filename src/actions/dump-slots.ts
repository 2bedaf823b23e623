import fs from 'node:fs';
import { availableParallelism, freemem } from 'node:os';
import { join } from 'node:path';
import { awaitLock, type LockAnswer, lockDescriptor } from './flock.ts';
import type { Host } from './host.ts';
import type { HostConfig } from './host-config.ts';
import { reasonOf } from './problem.ts';

/** Work that a host does for a few containers at a time, counted apart. */
export type Work = 'dumps' | 'restores';

/** The right to do such work; it ends with {@link release}, or with this process and those that have its descriptor. */
export interface Slot {
  /** For the programs that do the work: they hold the slot with this process, and after its death. */
  readonly descriptors: readonly number[];
  release(): void;
}

/** A kernel lock on an open file. */
type Held = { readonly fd: number; readonly path: string };

const noSlot: Slot = { descriptors: [], release: () => {} };
const timeIsUp = new Error('time is up');
const memoryEach = 1024 ** 3;

/** How many may do this work at once: what is set, or what the host's cores and its available memory bear. */
export function slotsFor(work: Work, config: HostConfig): number {
  const set = work === 'dumps' ? config.maxDumps : config.maxRestores;
  return set ?? Math.max(1, Math.min(availableParallelism() * 2, Math.floor(freemem() / memoryEach)));
}

/**
 * Waits for one of the host's slots for this work.
 *
 * A slot is a kernel lock on a file in the run directory: a wrapper that dies frees its own, once the CRIU that it has
 * begun has ended too. Who waits stands in the
 * queue of a further lock, which the kernel gives in turn, and only the first of them looks for a slot: so nobody is
 * passed by, and nobody polls. The bound is a courtesy to the host: where no slot can be had (a run directory that
 * cannot be written, or none that came free in `lockTimeoutSeconds`, so that CRIU must be hanging in each of them),
 * the work is done without one.
 */
export async function takeSlot(host: Host, work: Work): Promise<Slot> {
  const { runDir, lockTimeoutSeconds } = host.config;
  const directory = join(runDir, 'slots', work);
  const began = performance.now();
  try {
    const count = slotsFor(work, host.config);
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    const turn = await awaitTurn(join(directory, 'queue'), lockTimeoutSeconds);
    if (!turn) return withoutSlot(host, work, began, count);
    try {
      const paths = Array.from({ length: count }, (_, i) => join(directory, `${i}`));
      // One that is likely to be free where there are many; to try them all would cost a process for each, in turn.
      const likely = paths[process.pid % count] as string;
      // One deadline for the queue and the slot.
      const left = Math.max(0, lockTimeoutSeconds - (performance.now() - began) / 1000);
      const held = (await tryOne(likely)) ?? (await awaitAny(paths, left));
      if (!held) return withoutSlot(host, work, began, count);
      const waitedMs = Math.round(performance.now() - began);
      host.log.info({ work, waitedMs }, `has one of the ${count} slots for ${work}`);
      return { descriptors: [held.fd], release: once(() => fs.closeSync(held.fd)) };
    } finally {
      fs.closeSync(turn.fd);
    }
  } catch (error) {
    host.log.warn({ work, reason: reasonOf(error) }, `no slot for ${work} can be had: goes on without`);
    return noSlot;
  }
}

const open = (path: string): Held => ({ fd: fs.openSync(path, 'a', 0o600), path });

function withoutSlot(host: Host, work: Work, began: number, count: number): Slot {
  const waitedMs = Math.round(performance.now() - began);
  host.log.warn({ work, waitedMs }, `none of the ${count} slots for ${work} came free: goes on without`);
  return noSlot;
}

/** Undefined where the time is up. */
const awaitTurn = (path: string, timeoutSeconds: number): Promise<Held | undefined> =>
  ifLocked(path, ({ fd }) => awaitLock(fd, path, timeoutSeconds).answer);

const tryOne = (path: string): Promise<Held | undefined> =>
  ifLocked(path, ({ fd }) => lockDescriptor(fd, path, 0));

/** Opens a file for its lock, and closes it again where that is not had. */
async function ifLocked(
  path: string,
  ask: (file: Held) => LockAnswer | Promise<LockAnswer>,
): Promise<Held | undefined> {
  const file = open(path);
  let had = false;
  try {
    had = (await ask(file)) === 'locked';
    return had ? file : undefined;
  } finally {
    if (!had) fs.closeSync(file.fd);
  }
}

/** The slot that comes free first: one waits for each, and the others are called off. */
async function awaitAny(paths: readonly string[], timeoutSeconds: number): Promise<Held | undefined> {
  const slots = paths.map(open);
  const waits = slots.map(({ fd, path }) => awaitLock(fd, path, timeoutSeconds));
  let first: Held | undefined;
  try {
    first = await Promise.any(
      waits.map(async ({ answer }, i) => {
        if ((await answer) === 'busy') throw timeIsUp;
        return slots[i] as Held;
      }),
    );
    return first;
  } catch (error) {
    const failure = (error as AggregateError).errors.find((reason) => reason !== timeIsUp);
    if (failure) throw failure;
    return undefined;
  } finally {
    for (const wait of waits) wait.giveUp();
    await Promise.allSettled(waits.map(({ answer }) => answer));
    for (const slot of slots) if (slot !== first) fs.closeSync(slot.fd);
  }
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (!done) action();
    done = true;
  };
}
