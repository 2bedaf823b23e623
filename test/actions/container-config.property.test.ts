import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ContainerShape, settingsOf } from '../../src/actions/container-config.ts';
import { fingerprintOf } from '../../src/actions/fingerprint.ts';

const word = fc.constantFrom('', 'a', 'b', 'a,b', '"', 'CAP_CHOWN');
const words = fc.array(word, { maxLength: 3 });
const ids = fc.record({
  uid: fc.nat(2),
  gid: fc.nat(2),
  additionalGids: fc.array(fc.nat(2), { maxLength: 2 }),
});
const anyShape: fc.Arbitrary<ContainerShape> = fc.record({
  args: words,
  cwd: word,
  user: fc.option(ids),
  capabilities: fc.option(fc.record({ bounding: words, effective: words }, { requiredKeys: ['bounding'] })),
  terminal: fc.boolean(),
  namespaces: words,
  mountDestinations: words,
});

/** Two shapes that are the same, or differ in one thing; seldom in everything. */
const twoShapes = fc
  .tuple(
    anyShape,
    anyShape,
    fc.subarray<keyof ContainerShape>(['args', 'cwd', 'user', 'capabilities', 'namespaces']),
  )
  .map(([one, other, changed]): [ContainerShape, ContainerShape] => [
    one,
    { ...one, ...Object.fromEntries(changed.map((name) => [name, other[name]])) },
  ]);

describe('fingerprintOf', () => {
  it('should be equal for shapes that are equal, and for no others', () => {
    fc.assert(
      fc.property(twoShapes, ([one, other]) => {
        const [a, b] = structuredClone([one, other]) as [ContainerShape, ContainerShape];
        expect(fingerprintOf(a) === fingerprintOf(b)).toBe(isDeepStrictEqual(a, b));
      }),
      { numRuns: 1000 },
    );
  });

  it('should tell every part of a shape from every other', () => {
    const shape: ContainerShape = {
      args: ['a'],
      cwd: '/',
      user: { uid: 0 },
      capabilities: null,
      terminal: false,
      namespaces: ['pid'],
      mountDestinations: ['/proc'],
    };
    const others: ContainerShape[] = [
      { ...shape, args: ['a', ''] },
      { ...shape, cwd: '/a' },
      { ...shape, user: { uid: 1 } },
      { ...shape, capabilities: {} },
      { ...shape, terminal: true },
      { ...shape, namespaces: [] },
      { ...shape, mountDestinations: ['/proc', '/sys'] },
    ];
    expect(new Set([shape, ...others].map(fingerprintOf)).size).toBe(8);
    expect(fingerprintOf(shape)).toMatch(/^[0-9a-f]{64}$/);
  });

  // Another engine, or a newer one, may write the same user in another order.
  it('should not depend on the order of the names in a user', () => {
    const shape = {
      args: [],
      cwd: '/',
      capabilities: null,
      terminal: false,
      namespaces: [],
      mountDestinations: [],
    };
    expect(fingerprintOf({ ...shape, user: { uid: 1, gid: 2 } })).toBe(
      fingerprintOf({ ...shape, user: { gid: 2, uid: 1 } }),
    );
  });
});

describe('settingsOf', () => {
  const host = { checkpointRoot: '/c', allowedRoots: ['/allowed', '/also/this'] };
  const segment = fc.constantFrom('..', '.', '', 'allowed', 'also', 'this', 'a', 'allowed2', '...', ' ');
  const path = fc.oneof(
    fc.string(),
    fc.array(segment, { maxLength: 8 }).map((names) => names.join('/')),
    fc.array(segment, { maxLength: 8 }).map((names) => `/${names.join('/')}`),
    fc.array(segment, { maxLength: 4 }).map((names) => `/allowed/${names.join('/')}`),
  );

  it('should never lead out of the allowed roots, and never be anything but a setting or a refusal', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.constant('key')), path, (key, hostPath) => {
        const env = new Map([
          ['TARDIS_CHECKPOINT_KEY', key],
          ['TARDIS_CHECKPOINT_HOST_PATH', hostPath],
        ]);
        let place: string;
        try {
          const settings = settingsOf('id', env, host);
          place = `${settings.imageRoot}/${settings.key}`;
        } catch (error) {
          expect(error).toMatchObject({
            name: 'Problem',
            code: expect.stringMatching(/^checkpoint-(key|path)$/),
          });
          return;
        }
        expect(place).toMatch(/^\/(c|allowed|also\/this)\//);
        expect(place.split('/')).not.toContain('..');
      }),
      { numRuns: 1000 },
    );
  });
});
