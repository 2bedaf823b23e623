import fs from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerIdentity, ImageInMaking } from '../machines/vocabulary.ts';
import type { Host } from './host.ts';
import {
  type Ending,
  keyDirectory,
  pruneLedger,
  removeLedger,
  sweepDrafts,
  syncDirectory,
} from './ledger.ts';
import { checkLife, closeLife } from './lives.ts';
import { reasonOf } from './problem.ts';

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
  const { entries } = checkLife(container, image.epoch);
  const committed = entries.flatMap((entry) => (entry.kind === 'image' ? [entry] : []));
  const kept = new Set(committed.slice(-keep).map(({ generation }) => generation));
  const names = fs.readdirSync(home);
  const removed: number[] = [];
  const litter: string[] = [];
  for (const name of names) {
    const [, digits, rest = ''] = /^(\d+)(\.partial|\.removed)?$/.exec(name) ?? [];
    const generation = Number(digits);
    if (!digits || generation >= image.generation) continue;
    if (rest === '' && (kept.has(generation) || names.includes(`${name}.failed.jsonl`))) continue;
    if (rest === '') {
      // Out of sight first, and durably so: half an image must not bear a plain number.
      fs.renameSync(join(home, name), join(home, `${generation}.removed`));
      removed.push(generation);
    }
    litter.push(join(home, rest === '' ? `${generation}.removed` : name));
  }
  if (removed.length > 0) syncDirectory(home);
  for (const path of litter) await rm(path, { recursive: true, force: true });
  const life = entries.findLast(({ kind }) => kind === 'life');
  const oldest = committed.find(({ generation }) => fs.existsSync(join(home, String(generation))));
  pruneLedger(home, Math.min(life?.number ?? 0, oldest?.number ?? 0));
  sweepDrafts(home);
  return removed;
}

/**
 * Notes how a container's life ended, and removes what a job without images leaves. Fails nothing, and waits for no file
 * server that does not answer.
 */
export async function giveUpLife(
  host: Host,
  container: ContainerIdentity,
  epoch: number,
  how: Ending,
): Promise<void> {
  if (await closeLife(host, container, epoch, how)) forgetJob(host, container);
}

/**
 * Removes the directory of a key that has a ledger and no image: a job that was never checkpointed leaves nothing.
 * Failing to, or somebody else who takes the job up meanwhile, fails nothing.
 */
export function forgetJob(host: Host, container: ContainerIdentity): void {
  const home = keyDirectory(container);
  try {
    if (fs.readdirSync(home).some((name) => name !== 'ledger')) return;
    removeLedger(home);
    fs.rmdirSync(home);
  } catch (error) {
    host.log.debug({ reason: reasonOf(error) }, 'the key directory stays');
  }
}
