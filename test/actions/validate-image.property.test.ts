import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Problem } from '../../src/actions/problem.ts';
import { validateImage } from '../../src/actions/validate-image.ts';
import { smallFiles, target, writeSmallImage } from '../support/action-image.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const at = (name: string): string => scratch.at('image', name);

const names = Object.keys(smallFiles);
const anyName = fc.constantFrom(...names);
const notEmpty = fc.constantFrom(...names.filter((name) => smallFiles[name]?.length));
const bytes = fc.uint8Array({ minLength: 1, maxLength: 50 });
const word = fc.oneof(
  fc.stringMatching(/^[\w.-]{1,12}$/),
  fc.constantFrom('toString', 'constructor', 'valueOf', '-'),
);
const newName = fc
  .tuple(fc.constantFrom('', 'checkpoint/', 'new/'), word)
  .map((parts) => parts.join(''))
  .filter((name) => !/(^|\/)\.\.?$/.test(name) && ![...names, 'tardis.json', 'checkpoint'].includes(name));

/** Something that may befall an image's files. */
interface Damage {
  readonly words: string;
  do(): void;
}

const flip = fc.tuple(notEmpty, fc.nat(), fc.integer({ min: 0, max: 7 })).map(
  ([name, place, bit]): Damage => ({
    words: `flip bit ${bit} of byte ${place} in ${name}`,
    do() {
      const content = readFileSync(at(name));
      const byte = place % content.length;
      content[byte] = (content[byte] as number) ^ (1 << bit);
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
const remove = fc.constantFrom(...names, 'tardis.json', 'checkpoint').map(
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

async function findings(): Promise<unknown> {
  try {
    return await validateImage(scratch.at('image'), target);
  } catch (error) {
    return error;
  }
}

describe('an image', () => {
  it('should be refused with a Problem after any one damage to its files', async () => {
    const damage = fc.oneof(flip, cut, extend, remove, add, swap, rename);
    await fc.assert(
      fc.asyncProperty(damage, async (given) => {
        rmSync(scratch.at('image'), { recursive: true, force: true });
        await writeSmallImage(scratch.at('image'));
        given.do();
        const found = await findings();
        expect(found, given.words).toBeInstanceOf(Problem);
        expect(found).toMatchObject({ code: expect.stringMatching(/^image-(manifest|file-|size|digest)/) });
      }),
      { numRuns: 200 },
    );
  });

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
          else expect(found).toMatchObject({ schemaVersion: 1, key: 'job-key', files: expect.any(Object) });
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
