import fs from 'node:fs';
import { join } from 'node:path';
import type { KeyPlace, Outcome, Reason } from './gc.ts';
import type { Host } from './host.ts';
import { clockOf } from './ledger.ts';
import { reasonOf } from './problem.ts';
import { demandAnswer, markOf } from './share.ts';

/** How often a host looks through a directory of images for those of finished jobs. */
const everySeconds = 600;

/** How long the caller of the command waits for that. */
const usualBudgetMs = 200;

/** How long a delete waits for the images of its own job, which go on being removed after that. */
const atOnceMs = 10_000;

/** Of a directory with more keys than that, as many are drawn by lot each time. */
const mostNames = 10_000;

/**
 * Removes the images of finished jobs that have been kept for `keepFinishedSeconds`, of all keys below a directory: with an
 * orchestrator that gives each job a new id, nobody would ever come back to them.
 *
 * Does so at most once in ten minutes, and for 0.2 s, beginning anywhere; what is not looked at then is the next time, or on
 * another host. Fails nothing.
 */
export async function sweepIfDue(host: Host, imageRoot: string, budgetMs = usualBudgetMs): Promise<void> {
  try {
    if (!takeTurn(host, imageRoot)) return;
    await demandAnswer(host, imageRoot, true);
    await sweep(host, imageRoot, budgetMs);
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, `cannot look for images of finished jobs in ${imageRoot}`);
  }
}

async function sweep(host: Host, imageRoot: string, budgetMs: number): Promise<void> {
  const { refuseUnsafeRoot } = await import('./image-place.ts');
  await import('./gc.ts');
  const deadline = performance.now() + budgetMs;
  if (!fs.existsSync(imageRoot)) return;
  refuseUnsafeRoot(host.config, imageRoot);
  const now = clockOf(imageRoot);
  for (const key of fromAnywhere(namesUntil(imageRoot, deadline - budgetMs / 2))) {
    if (performance.now() >= deadline) return;
    // What is large goes on being removed while this process ends; then one is enough.
    if ((await removeOne(host, { imageRoot, key }, now, deadline)) === 'going') return;
  }
}

/** Removes what a job that has just ended has left, where nothing of it is to be kept. Fails nothing. */
export async function removeFinished(host: Host, place: KeyPlace): Promise<void> {
  try {
    const { refuseUnsafeRoot } = await import('./image-place.ts');
    refuseUnsafeRoot(host.config, place.imageRoot);
    await removeOne(host, place, clockOf(place.imageRoot), performance.now() + atOnceMs);
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, `cannot remove the images of ${place.key}, which has ended`);
  }
}

async function removeOne(
  host: Host,
  place: KeyPlace,
  now: number,
  deadline: number,
): Promise<Outcome | undefined> {
  const { dueIn, isKey, isQuiet, removeDue } = await import('./gc.ts');
  const { keepFinishedSeconds } = host.config;
  try {
    if (!isKey(place) || !isQuiet(place, now, { keepFinishedSeconds })) return undefined;
    const due = dueIn(host, place, now, { keepFinishedSeconds });
    if (!due) return undefined;
    const outcome = await removeDue(host, due, Math.max(0, deadline - performance.now()));
    if (outcome !== 'taken') logRemoval(host, due);
    return outcome;
  } catch (error) {
    host.log.warn({ reason: reasonOf(error), key: place.key }, `left ${place.key} alone: ${reasonOf(error)}`);
    return undefined;
  }
}

/** Says in the log what was removed, and why. */
export function logRemoval(
  { log }: Pick<Host, 'log'>,
  { imageRoot, key, reason, generations }: KeyPlace & { reason: Reason; generations: readonly number[] },
): void {
  log.info({ imageRoot, key, reason, generations }, `removed what ${key} had left (${reason})`);
}

/** Whether this process is to look now; one that comes after it is not, for a while. */
function takeTurn(host: Host, imageRoot: string): boolean {
  const stamp = markOf(host, 'swept', imageRoot);
  const then = fs.statSync(stamp, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  // A clock that was set back counts as time that has passed.
  if (Math.abs(Date.now() - then) < everySeconds * 1000) return false;
  fs.mkdirSync(join(stamp, '..'), { recursive: true, mode: 0o700 });
  fs.writeFileSync(stamp, '', { mode: 0o600 });
  return true;
}

/** Names of a directory, by lot of those that can be read by then: each has the same chance. */
function namesUntil(directory: string, deadline: number): string[] {
  const opened = fs.opendirSync(directory);
  try {
    const names: string[] = [];
    for (let seen = 1; performance.now() < deadline; seen++) {
      const entry = opened.readSync();
      if (!entry) break;
      const place = seen <= mostNames ? names.length : Math.floor(Math.random() * seen);
      if (place < mostNames) names[place] = entry.name;
    }
    return names;
  } finally {
    opened.closeSync();
  }
}

/** From a place by chance on: whoever comes first every time must not keep the others from being looked at. */
function fromAnywhere(names: readonly string[]): string[] {
  const first = Math.floor(Math.random() * names.length);
  return [...names.slice(first), ...names.slice(0, first)];
}
