import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ManifestKeys } from '../../src/actions/manifest-keys.ts';
import { Problem } from '../../src/actions/problem.ts';
import { validateImage } from '../../src/actions/validate-image.ts';
import { smallFiles, target, writeSmallImage } from '../support/action-image.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const at = (name: string): string => scratch.at('image', name);

const names = [...Object.keys(smallFiles), 'tardis.json'];
const anyName = fc.constantFrom(...names);
const notEmpty = fc.constantFrom(...names.filter((name) => smallFiles[name]?.length !== 0));
const bytes = fc.uint8Array({ minLength: 1, maxLength: 50 });
const word = fc.oneof(
  fc.stringMatching(/^[\w.-]{1,12}$/),
  fc.constantFrom('toString', 'constructor', 'valueOf', '-'),
);
const newName = fc
  .tuple(fc.constantFrom('', 'checkpoint/', 'new/'), word)
  .map((parts) => parts.join(''))
  .filter((name) => !/(^|\/)\.\.?$/.test(name) && ![...names, 'checkpoint'].includes(name));

/** Something that may befall an image's files. */
interface Damage {
  readonly words: string;
  do(): void;
}

const flip = fc.tuple(notEmpty, fc.nat(), fc.integer({ min: 1, max: 255 })).map(
  ([name, place, mask]): Damage => ({
    words: `flip the bits ${mask} of byte ${place} in ${name}`,
    do() {
      const content = readFileSync(at(name));
      const byte = place % content.length;
      content[byte] = (content[byte] as number) ^ mask;
      writeFileSync(at(name), content);
    },
  }),
);
const cut = fc.tuple(notEmpty, fc.nat()).map(
  ([name, length]): Damage => ({
    words: `cut ${name} at ${length}`,
    do() {
      const content = readFileSync(at(name));
      writeFileSync(at(name), content.subarray(0, length % content.length));
    },
  }),
);
const extend = fc.tuple(anyName, bytes).map(
  ([name, more]): Damage => ({
    words: `extend ${name} by ${more.length}`,
    do: () => writeFileSync(at(name), more, { flag: 'a' }),
  }),
);
/** JSON takes spaces anywhere: a manifest must not. */
const space = fc.tuple(fc.nat(), fc.constantFrom(' ', '\n', '\t')).map(
  ([place, blank]): Damage => ({
    words: `put a ${JSON.stringify(blank)} into the manifest`,
    do() {
      const text = readFileSync(at('tardis.json'), 'utf8');
      const middle = place % (text.length + 1);
      writeFileSync(at('tardis.json'), text.slice(0, middle) + blank + text.slice(middle));
    },
  }),
);
const remove = fc.constantFrom(...names, 'checkpoint').map(
  (name): Damage => ({
    words: `delete ${name}`,
    do: () => rmSync(at(name), { recursive: true }),
  }),
);
const add = fc.tuple(newName, fc.uint8Array({ maxLength: 9 })).map(
  ([name, content]): Damage => ({
    words: `add ${name}`,
    do: () => writeFileSync(at(name), content),
  }),
);
const swap = fc.shuffledSubarray(names, { minLength: 2, maxLength: 2 }).map(
  ([one = '', other = '']): Damage => ({
    words: `swap ${one} and ${other}`,
    do() {
      renameSync(at(one), at('swap'));
      renameSync(at(other), at(one));
      renameSync(at('swap'), at(other));
    },
  }),
);
const rename = fc.tuple(anyName, newName).map(
  ([from, to]): Damage => ({
    words: `rename ${from} to ${to}`,
    do: () => renameSync(at(from), at(to)),
  }),
);

/** Every file of the scratch directory with what it holds. */
const listing = (): string[] =>
  readdirSync(scratch.path, { recursive: true, withFileTypes: true })
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => (statSync(path).isFile() ? `${path} ${readFileSync(path, 'hex')}` : path))
    .sort();

async function findings(given = target): Promise<unknown> {
  try {
    return await validateImage(scratch.at('image'), given);
  } catch (error) {
    return error;
  }
}

describe('an image', () => {
  it.each<[what: string, keys: ManifestKeys | undefined]>([
    ['as it is', undefined],
    ['signed', { current: 'k', secrets: new Map([['k', Buffer.alloc(32, 1)]]) }],
  ])(
    'should be refused with a Problem after any one damage to its files, %s, and not be touched',
    async (_, keys) => {
      const damage = fc.oneof(flip, cut, extend, space, remove, add, swap, rename);
      await fc.assert(
        fc.asyncProperty(damage, async (given) => {
          rmSync(scratch.at('image'), { recursive: true, force: true });
          await writeSmallImage(scratch.at('image'), keys);
          given.do();
          const before = listing();
          const found = await findings({ ...target, keys });
          expect(found, given.words).toBeInstanceOf(Problem);
          expect(found).toMatchObject({ code: expect.stringMatching(/^image-(manifest|file-|size|digest)/) });
          expect(listing()).toEqual(before);
        }),
        { numRuns: 300 },
      );
    },
  );

  it('should give nothing but a Problem or a manifest, whatever its manifest holds', async () => {
    await writeSmallImage(scratch.at('image'));
    const text = readFileSync(at('tardis.json'), 'latin1');
    await fc.assert(
      fc.asyncProperty(
        fc.nat(text.length - 1),
        fc.constantFrom('', '0', '"', '}', 'x', '-', 'ÿ'),
        async (place, put) => {
          writeFileSync(at('tardis.json'), text.slice(0, place) + put + text.slice(place + 1), 'latin1');
          const found = await findings();
          if (found instanceof Error) expect(found).toBeInstanceOf(Problem);
          else expect(found).toMatchObject({ schemaVersion: 2, key: 'job-key', files: expect.any(Object) });
        },
      ),
      { numRuns: 300 },
    );
  });

  // Nothing covers the manifest itself: a wrong digit there stops the wrong task, or drops a flag.
  it('should be refused where a digit of its manifest is another', async () => {
    await writeSmallImage(scratch.at('image'));
    const text = readFileSync(at('tardis.json'), 'utf8');
    const place = text.indexOf('17', text.indexOf('"stoppedTasks"'));
    writeFileSync(at('tardis.json'), `${text.slice(0, place)}18${text.slice(place + 2)}`);
    expect(await findings()).toBeInstanceOf(Problem);
  });
});
