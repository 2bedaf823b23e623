import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ResumeAfter } from '../../src/actions/container-config.ts';
import { imagesFor } from '../../src/actions/find-images.ts';
import { type NewEntry, noteEntry } from '../../src/actions/ledger.ts';
import { thisHost } from '../../src/actions/lives.ts';
import { hostWith } from '../support/action-host.ts';
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
  broken: (generation) => ({ kind: 'failed', epoch: 1, generation, host: thisHost(hostWith()) }),
  elsewhere: (generation) => ({ kind: 'failed', epoch: 1, generation, host: 'another' }),
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
  const { images, failure } = imagesFor(hostWith(), job(), after);
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
    ['life image 1 broken 1 broken 1', []],
    ['life image 1 image 2 attempt 2 broken 2 life attempt 2 broken 2 life', [1]],
    ['life image 1 image 2 broken 2 broken 2 broken 1 broken 1', []],
    [`life image 1 image 2 ${'attempt 2 life '.repeat(10)}`, [1]],
  ])(
    'leaves out an image that CRIU could not restore here twice, or whose restores were cut short ten times: %s',
    (words, generations) => {
      ledger(words);
      expect(found()).toEqual({ generations, code: 'image-attempts' });
    },
  );

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

  it.each([
    ['on other hosts', 'life image 1 elsewhere 1 elsewhere 1 elsewhere 1'],
    ['because the engine lost patience, less than ten times', `life image 1 ${'attempt 1 life '.repeat(9)}`],
    [
      'before it succeeded',
      `life image 1 ${'attempt 1 life '.repeat(9)} attempt 1 restored 1 life attempt 1`,
    ],
  ])('keeps an image whose restores failed %s', (_, words) => {
    ledger(words);
    expect(found()).toEqual({ generations: [1], code: undefined });
  });

  it('bars the images that a life has continued or committed when it ends by itself, and no others', () => {
    ledger('life image 1 image 2 killed');
    const strange = { kind: 'life', claimant } as const;
    noteEntry(home(), strange);
    noteEntry(home(), { kind: 'end', epoch: 5, how: 'finished' });
    expect(found().generations).toEqual([2, 1]);
    noteEntry(home(), strange);
    noteEntry(home(), { kind: 'restored', epoch: 7, generation: 1 });
    noteEntry(home(), { kind: 'end', epoch: 7, how: 'finished' });
    expect(found().generations).toEqual([2]);
    noteEntry(home(), strange);
    noteEntry(home(), { kind: 'restored', epoch: 10, generation: 2 });
    noteEntry(home(), { kind: 'end', epoch: 10, how: 'finished' });
    expect(found()).toEqual({ generations: [], code: 'job-ended' });
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
