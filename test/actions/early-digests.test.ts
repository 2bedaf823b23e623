import { randomBytes } from 'node:crypto';
import { appendFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { beginDigests, type EarlyDigests } from '../../src/actions/early-digests.ts';
import { chunkBytes, digestsOf } from '../../src/actions/file-digests.ts';
import { useScratch } from '../support/action-scratch.ts';
import { waitFor } from '../support/wait.ts';

const image = useScratch();
const pages = () => image.at('pages-1.img');

/** What digests that were begun know of the pages, as soon as they know so many pieces. */
const knownOf = async (early: EarlyDigests, pieces: number) => {
  await waitFor(`${pieces} digests`, () => countOf(early.soFar.get(pages())) === pieces);
  return early.finish();
};
const countOf = (digests: readonly Uint8Array[] = []): number =>
  digests.filter(({ length }) => length > 0).length;

it('should give the digests that a reading of the whole would, where the file grows in odd steps', async () => {
  const early = beginDigests(image.path, 3);
  for (const part of [1, chunkBytes - 2, 1, chunkBytes + 5, chunkBytes, 77]) {
    appendFileSync(pages(), randomBytes(part));
    await new Promise(setImmediate);
  }
  writeFileSync(image.at('core-1.img'), randomBytes(chunkBytes * 2));
  const known = await knownOf(early, 3);
  expect([...known.keys()]).toEqual([pages()]);
  const names = ['pages-1.img', 'core-1.img'];
  expect(await digestsOf(image.path, names, known)).toEqual(await digestsOf(image.path, names));
  expect(statSync(pages()).size).toBe(3 * chunkBytes + 82);
});

it('should read what it does not know, and not what it knows', async () => {
  writeFileSync(pages(), randomBytes(2 * chunkBytes));
  const known = await knownOf(beginDigests(image.path, 2), 2);
  const [first = new Uint8Array(), second = new Uint8Array()] = known.get(pages()) ?? [];
  const whole = await digestsOf(image.path, ['pages-1.img']);
  writeFileSync(pages(), randomBytes(2 * chunkBytes));
  expect(await digestsOf(image.path, ['pages-1.img'], known)).toEqual(whole);
  expect(await digestsOf(image.path, ['pages-1.img'], new Map([[pages(), [first]]]))).not.toEqual(whole);
  expect(
    await digestsOf(image.path, ['pages-1.img'], new Map([[pages(), [new Uint8Array(), second]]])),
  ).not.toEqual(whole);
});

it('should know nothing where a host has one core, or the directory cannot be read', async () => {
  writeFileSync(pages(), randomBytes(chunkBytes));
  expect(await beginDigests(image.path, 1).finish()).toEqual(new Map());
  const early = beginDigests(image.at('gone'), 2);
  expect(await early.finish()).toEqual(new Map());
  rmSync(pages());
});
