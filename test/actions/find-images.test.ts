import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ResumeAfter } from '../../src/actions/container-config.ts';
import { imagesFor } from '../../src/actions/find-images.ts';
import { type NewEntry, noteEntry } from '../../src/actions/ledger.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const job = () => ({ imageRoot: scratch.at('images'), key: 'job' });
const home = () => scratch.at('images', 'job', 'x').slice(0, -2);

const claimant = { host: 'a', root: '/r', id: 'i', wrapper: { pid: 1, startTime: 1 } };
const entries: Record<string, (generation: number) => NewEntry> = {
  life: () => ({ kind: 'life', claimant }),
  image: (generation) => ({ kind: 'image', epoch: 1, generation }),
  attempt: (generation) => ({ kind: 'attempt', epoch: 1, generation }),
  restored: (generation) => ({ kind: 'restored', epoch: 1, generation }),
  checkpointed: () => ({ kind: 'end', epoch: 1, how: 'checkpointed' }),
  killed: () => ({ kind: 'end', epoch: 1, how: 'killed' }),
  failed: () => ({ kind: 'end', epoch: 1, how: 'failed' }),
  finished: () => ({ kind: 'end', epoch: 1, how: 'finished' }),
};

/** Writes a ledger such as `life image 1 attempt 1`, with the images that it names. */
function ledger(words: string): void {
  for (const [, name = '', digits = '0'] of words.matchAll(/([a-z]+)(?: (\d+))?/g)) {
    const entry = entries[name]?.(Number(digits));
    if (!entry) throw new Error(name);
    noteEntry(home(), entry);
    if (name === 'image') mkdirSync(join(home(), digits));
  }
}

const found = (after: ResumeAfter = 'preempted') => {
  const { images, failure } = imagesFor(job(), after, 2);
  return { generations: images.map(({ generation }) => generation), code: failure?.code };
};

describe('imagesFor', () => {
  it.each([
    ['', []],
    ['life', []],
    ['life image 1', [1]],
    ['life image 1 image 2 image 5', [5, 2, 1]],
    ['life image 1 checkpointed life', [1]],
    ['life image 1 killed life', [1]],
    ['life image 1 attempt 1 restored 1 life attempt 1 life', [1]],
  ])('should find the images of a ledger with "%s", the newest first', (words, generations) => {
    ledger(words);
    expect(found()).toEqual({ generations, code: undefined });
  });

  it.each([
    ['life image 1 attempt 1 attempt 1', []],
    ['life image 1 image 2 attempt 2 life attempt 2 life', [1]],
    ['life image 1 image 2 attempt 2 attempt 2 attempt 1 attempt 1', []],
  ])('should leave out an image that failed twice: %s', (words, generations) => {
    ledger(words);
    expect(found()).toEqual({ generations, code: 'image-attempts' });
  });

  it.each([
    ['finished', 'preempted', []],
    ['finished', 'failure', []],
    ['finished', 'always', [1]],
    ['failed', 'preempted', []],
    ['failed', 'failure', [1]],
    ['failed', 'always', [1]],
  ] as const)('should, of a job that %s, with %s find %j', (how, after, generations) => {
    ledger(`life image 1 ${how} life`);
    expect(found(after)).toEqual({
      generations: [...generations],
      code: generations.length === 0 ? 'job-ended' : undefined,
    });
  });

  it('should find what was made since the job last ended by itself', () => {
    ledger('life image 1 finished life image 2 killed life');
    expect(found()).toEqual({ generations: [2], code: undefined });
  });

  it('should not name images that are gone', () => {
    ledger('life image 1 image 2');
    noteEntry(home(), { kind: 'image', epoch: 1, generation: 3 });
    expect(found().generations).toEqual([2, 1]);
  });

  it('should take the image that current names where images were brought without their ledger', () => {
    mkdirSync(join(home(), '4'), { recursive: true });
    symlinkSync('4', join(home(), 'current'));
    expect(found()).toEqual({ generations: [4], code: undefined });
  });
});
