import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Manifest, readManifest, writeManifest } from '../../src/actions/manifest.ts';
import { manifestOf } from '../support/action-image.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();
const file = (): string => scratch.at('tardis.json');
const digest = fc.record(
  { bytes: fc.maxSafeNat(), sha256: fc.stringMatching(/^[0-9a-f]{64}$/) },
  { noNullPrototype: true },
);

describe('writeManifest', () => {
  it('should keep everything for readManifest', () => {
    const names = fc.string({ minLength: 1 }).filter((name) => name !== '__proto__');
    fc.assert(
      fc.property(fc.dictionary(names, digest, { noNullPrototype: true }), fc.string(), (files, key) => {
        const manifest: Manifest = { ...manifestOf(files), key };
        writeManifest(scratch.path, manifest);
        expect(readManifest(scratch.path)).toEqual(manifest);
      }),
    );
  });

  it('should write for the owner only', () => {
    writeManifest(scratch.path, manifestOf());
    expect(statSync(file()).mode & 0o777).toBe(0o600);
  });
});

/** A manifest as text, with one of its parts another; without it where that is undefined. */
const put = (name: string, value: unknown): string =>
  JSON.stringify({ ...manifestOf({ a: { bytes: 1, sha256: 'a'.repeat(64) } }), [name]: value });

describe('readManifest', () => {
  it.each([
    ['missing', undefined, /ENOENT/],
    ['empty', '', /JSON/],
    ['torn', put('epoch', 0).slice(0, -7), /JSON/],
    ['a list', '[]', /expected object/],
    ['of a newer schema', put('schemaVersion', 4), /schemaVersion/],
    ['of an older schema', put('schemaVersion', 1), /schemaVersion/],
    ['without a schema', put('schemaVersion', undefined), /schemaVersion/],
    ['without a key', put('key', undefined), /\bkey\b/],
    ['of generation zero', put('generation', 0), /generation/],
    ['of a life before the first', put('epoch', -1), /epoch/],
    ['without a container', put('container', null), /container/],
    ['without a shape', put('container', { id: 'a', fingerprint: 'b' }), /container\.shape/],
    [
      'with flags that are no list',
      put('dump', { leftRunning: true, flags: '', stoppedTasks: [] }),
      /dump\.flags/,
    ],
    [
      'of an unknown root file system',
      put('rootfs', { ...manifestOf().rootfs, kind: 'zfs' }),
      /rootfs\.kind/,
    ],
    ['without a host', put('host', {}), /host\.arch/],
    ['without files', put('files', undefined), /files/],
    [
      'with a file of less than nothing',
      put('files', { a: { bytes: -1, sha256: 'a'.repeat(64) } }),
      /files\.a\.bytes/,
    ],
    [
      'with a file of half a byte',
      put('files', { a: { bytes: 0.5, sha256: 'a'.repeat(64) } }),
      /files\.a\.bytes/,
    ],
  ])('should refuse one that is %s, with the way out, in one line', async (_, text, message) => {
    if (text !== undefined) writeFileSync(file(), text);
    const problem = await problemOf(() => readManifest(scratch.path));
    expect(problem.code).toBe('image-manifest');
    expect(problem.message).toContain(`${file()} is not a manifest of this Tardis (schema 2 or 3): `);
    expect(problem.message).toMatch(message);
    expect(problem.message).toMatch(/; take another image, or the Tardis that wrote it$/);
    expect(problem.message).not.toContain('\n');
  });

  it('should refuse what cannot be read', async () => {
    mkdirSync(file());
    expect((await problemOf(() => readManifest(scratch.path))).message).toContain('EISDIR');
  });

  it('should take no notice of what a later Tardis has added', () => {
    const manifest = manifestOf({ a: { bytes: 1, sha256: 'a'.repeat(64) } });
    writeManifest(scratch.path, { ...manifest, colour: 'blue' } as Manifest);
    expect(readManifest(scratch.path)).toEqual(manifest);
  });

  it('should refuse every manifest that is cut short', async () => {
    writeManifest(scratch.path, manifestOf());
    const text = readFileSync(file(), 'utf8').trimEnd();
    for (let length = 0; length < text.length; length += 7) {
      writeFileSync(file(), text.slice(0, length));
      expect((await problemOf(() => readManifest(scratch.path))).code).toBe('image-manifest');
    }
  });
});
