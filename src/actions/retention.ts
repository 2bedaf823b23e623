import fs from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerIdentity, ImageInMaking } from '../machines/vocabulary.ts';
import type { ResumeAfter } from './container-config.ts';
import type { Host } from './host.ts';
import {
  type Ending,
  type Entry,
  keyDirectory,
  type Ledger,
  readLedger,
  removeLedger,
  sweepDrafts,
  syncDirectory,
} from './ledger.ts';
import {
  type Claim,
  checkLife,
  closeLife,
  compactLedger,
  hasEnded,
  isOf,
  isRemoved,
  latestLife,
} from './lives.ts';
import { reasonOf } from './problem.ts';
import { forgetKey, isBeingRemoved, noteRemoval } from './removal.ts';

/**
 * Removes what a newly committed image makes superfluous: older images but the newest ones, what dead wrappers left
 * half made, and the ledger's entries that nobody needs any more.
 *
 * Called by the life that has just committed, and only while it holds the job: nobody restores an image then but one
 * who has superseded it, from the newest. Images that were refused somewhere stay, for whoever can use them: their
 * mark `<generation>.failed.jsonl` is removed by hand, and they go with the next checkpoint.
 *
 * @param keep how many images are kept, at least one.
 * @throws Problem `life-superseded`; the file system's own error.
 */
export async function collectGarbage(
  container: ContainerIdentity,
  image: ImageInMaking,
  keep: number,
): Promise<number[]> {
  const home = keyDirectory(container);
  const ledger = checkLife(container, image);
  const { entries } = ledger;
  const committed = entries.flatMap((entry) =>
    entry.kind === 'image' && !isRemoved(ledger, entry) ? [entry] : [],
  );
  const kept = new Set(committed.slice(-keep).map(({ generation }) => generation));
  const names = fs.readdirSync(home);
  const removed: number[] = [];
  const litter: string[] = [];
  for (const name of names) {
    const [, digits, rest = ''] = /^(\d+)(\.partial|\.removed)?$/.exec(name) ?? [];
    const generation = Number(digits);
    if (!digits || generation >= image.generation) continue;
    if (rest === '' && (kept.has(generation) || isDoubtful(entries, generation))) continue;
    if (rest === '' && names.includes(`${name}.failed.jsonl`)) continue;
    if (rest === '') {
      // Out of sight first, and durably so: half an image must not bear a plain number.
      fs.renameSync(join(home, name), join(home, `${generation}.removed`));
      removed.push(generation);
    }
    litter.push(join(home, rest === '' ? `${generation}.removed` : name));
  }
  if (removed.length > 0) syncDirectory(home);
  for (const path of litter) await rm(path, { recursive: true, force: true });
  compactLedger(home);
  sweepDrafts(home);
  return removed;
}

/** Whether an image was begun to be restored and never was: somebody else may succeed with it. */
const isDoubtful = (entries: readonly Entry[], generation: number): boolean =>
  entries.some((entry) => entry.kind === 'attempt' && entry.generation === generation) &&
  !entries.some((entry) => entry.kind === 'restored' && entry.generation === generation);

/**
 * Notes how a container's life ended, and removes what a job without images leaves, and the images of a finished job where
 * none are to be kept. Fails nothing, and waits for no file server that does not answer.
 *
 * @param resumeAfter the job's own setting, where it is known.
 */
export async function giveUpLife(
  host: Host,
  container: ContainerIdentity,
  life: Claim,
  how: Ending,
  resumeAfter?: ResumeAfter,
): Promise<void> {
  if (!(await closeLife(host, container, life, how, resumeAfter))) return;
  if (how === 'finished' && host.config.keepFinishedSeconds === 0)
    await (await import('./sweep.ts')).removeFinished(host, container);
  forgetJob(host, container, life);
}

/**
 * Removes the directory of a key that has a ledger and no image, if the life that has ended is the latest one: a job that
 * was never checkpointed leaves nothing. Failing to, or somebody else who takes the job up meanwhile, fails nothing.
 */
export function forgetJob(host: Host, container: ContainerIdentity, claim: Claim): void {
  const home = keyDirectory(container);
  try {
    const ledger = readLedger(home);
    const latest = latestLife(ledger);
    if (fs.readdirSync(home).some((name) => name !== 'ledger')) return;
    if (ledger.last === 0) {
      removeEmptyKey(home, ledger);
      return;
    }
    // A successor's ledger is none of a dead predecessor's business.
    const isOver = isOf(latest, claim) && hasEnded(ledger, latest);
    if (!isOver || ledger.unknown > 0 || isBeingRemoved(host, home, ledger)) return;
    const noted = noteRemoval(host, home, ledger, []);
    if (noted !== undefined) forgetKey(host, home, ledger, noted);
  } catch (error) {
    host.log.debug({ reason: reasonOf(error) }, 'the key directory stays');
  }
}

/** Removes the rest of a key whose ledger has no entry any more; a draft in it may be somebody's who is about to begin it anew. */
function removeEmptyKey(home: string, ledger: Ledger): void {
  if (fs.existsSync(join(home, 'ledger'))) removeLedger(home, ledger);
  fs.rmdirSync(home);
}
