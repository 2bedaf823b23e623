import { mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Claimant, keyDirectory, type NewEntry, noteEntry } from '../../src/actions/ledger.ts';

/** A life's container on a host that nobody here can ask. */
export const elsewhere: Claimant = {
  host: 'elsewhere',
  root: '/r',
  id: 'i',
  wrapper: { pid: 1, startTime: 1 },
};

/**
 * Writes a key's ledger from words such as `life image 1 restored 1 finished life`, with the images that it names. An ending
 * is of the life before it, and may carry the job's TARDIS_RESUME_AFTER: `finished:preempted`.
 */
export function writeKey(
  place: { readonly imageRoot: string; readonly key: string },
  words: string,
  claimant = elsewhere,
): void {
  const home = keyDirectory(place);
  let epoch = 0;
  let number = 0;
  for (const [, kind = '', digits = '', , resumeAfter] of words.matchAll(
    /([a-z]+)(?: (\d+))?(:([a-z]+))?/g,
  )) {
    number += 1;
    if (kind === 'life') epoch = number;
    const generation = Number(digits);
    if (kind === 'image') {
      mkdirSync(join(home, digits, 'checkpoint'), { recursive: true, mode: 0o700 });
      writeFileSync(join(home, digits, 'checkpoint', 'pages-1.img'), 'memory');
    }
    noteEntry(home, entryOf(kind, epoch, generation, resumeAfter, claimant));
  }
}

function entryOf(
  kind: string,
  epoch: number,
  generation: number,
  resumeAfter: string | undefined,
  claimant: Claimant,
): NewEntry {
  switch (kind) {
    case 'life':
      return { kind, claimant };
    case 'image':
    case 'attempt':
    case 'restored':
      return { kind, epoch, generation };
    case 'removal':
      return { kind, generations: [generation], host: claimant.host, remover: claimant.wrapper };
    case 'checkpointed':
    case 'killed':
    case 'failed':
    case 'finished':
      return { kind: 'end', epoch, how: kind, ...(resumeAfter ? { resumeAfter } : {}) };
    default:
      throw new Error(`no entry is called ${kind}`);
  }
}

/** Makes all that is in a key's directory older than it is. */
export function ageKey(place: { readonly imageRoot: string; readonly key: string }, days: number): void {
  const home = keyDirectory(place);
  const then = Date.now() / 1000 - days * 86_400;
  for (const name of readdirSync(home, { recursive: true, encoding: 'utf8' }))
    utimesSync(join(home, name), then, then);
}
