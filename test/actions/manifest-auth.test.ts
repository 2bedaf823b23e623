import { createHash, createHmac } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalJson } from '../../src/actions/canonical-json.ts';
import { readManifest, writeManifest } from '../../src/actions/manifest.ts';
import type { ManifestKeys } from '../../src/actions/manifest-keys.ts';
import { manifestOf } from '../support/action-image.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();
const secret = (fill: number): Buffer => Buffer.alloc(32, fill);
const keysOf = (current: string, secrets: Record<string, Buffer>): ManifestKeys => ({
  current,
  secrets: new Map(Object.entries(secrets)),
});
const keys = keysOf('2026', { '2025': secret(1), '2026': secret(2) });
const manifest = manifestOf({ a: { bytes: 1, sha256: 'a'.repeat(64) } });
const read = (given?: ManifestKeys) => readManifest(scratch.path, given);
const said = () => JSON.parse(readFileSync(scratch.at('tardis.json'), 'utf8'));

describe('a signed manifest', () => {
  it('should be read by whoever has its key', () => {
    writeManifest(scratch.path, manifest, keys);
    expect(read(keys)).toEqual({ ...manifest, auth: { keyId: '2026', hmac: expect.any(String) } });
  });

  // Another program must be able to check it: the formula is the documented one, computed here without ours.
  it('should carry HMAC-SHA-256 over its sorted JSON without auth and sha256', () => {
    writeManifest(scratch.path, manifest, keys);
    const { auth, sha256: _, ...rest } = said();
    const sorted = (value: unknown): unknown =>
      typeof value !== 'object' || value === null
        ? value
        : Array.isArray(value)
          ? value.map(sorted)
          : Object.fromEntries(
              Object.keys(value)
                .sort()
                .map((name) => [name, sorted((value as Record<string, unknown>)[name])]),
            );
    const hmac = createHmac('sha256', secret(2))
      .update(JSON.stringify(sorted(rest)))
      .digest('hex');
    expect(auth).toEqual({ keyId: '2026', hmac });
  });

  it('should still be read after its key has been rotated out of use, until it is taken away', async () => {
    writeManifest(scratch.path, manifest, keysOf('2025', { '2025': secret(1) }));
    expect(read(keys).auth?.keyId).toBe('2025');
    const problem = await problemOf(() => read(keysOf('2026', { '2026': secret(2) })));
    expect(problem.code).toBe('image-auth-key');
    expect(problem.message).toMatch(/the key "2025", this host's manifestKeys hold 2026; add that key/);
  });

  it('should be refused where another secret has the same id', async () => {
    writeManifest(scratch.path, manifest, keys);
    const problem = await problemOf(() => read(keysOf('2026', { '2026': secret(3) })));
    expect(problem).toMatchObject({ code: 'image-auth', message: expect.stringMatching(/; find out which/) });
  });

  it('should be taken by a host without keys: it cannot check', () => {
    writeManifest(scratch.path, manifest, keys);
    expect(read().key).toBe(manifest.key);
  });

  it('should be signed anew, not copied, by whoever writes it again', () => {
    writeManifest(scratch.path, manifest, keys);
    writeManifest(scratch.path, { ...read(), key: 'other' });
    expect(said().auth).toBeUndefined();
  });
});

describe('an image on a host with keys', () => {
  it('should be refused where it is not signed, with the way out', async () => {
    writeManifest(scratch.path, manifest);
    const problem = await problemOf(() => read(keys));
    expect(problem.code).toBe('image-auth-missing');
    expect(problem.message).toMatch(/is not signed.*; take an image that was made with a key, or start/);
  });

  // What somebody does who can write files and has no key: whatever is changed, the digest is made to fit.
  it('should be refused whatever part of a signed manifest is forged', async () => {
    writeManifest(scratch.path, manifest, keys);
    const { sha256: _, ...signed } = said();
    const names = Object.keys(signed).filter((name) => name !== 'schemaVersion');
    const forge = (forged: object): void => {
      const sha256 = createHash('sha256').update(JSON.stringify(forged)).digest('hex');
      writeFileSync(scratch.at('tardis.json'), `${JSON.stringify({ ...forged, sha256 }, null, 1)}\n`);
    };
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), fc.jsonValue(), async (name, value) => {
        fc.pre(canonicalJson(signed[name]) !== canonicalJson(value));
        forge({ ...signed, [name]: value });
        expect((await problemOf(() => read(keys))).code).toMatch(/^image-(auth|manifest)/);
      }),
      { numRuns: 300 },
    );
    forge({ ...signed, key: 'other' });
    expect((await problemOf(() => read(keys))).code).toBe('image-auth');
    forge({ ...signed, later: 'words' });
    expect((await problemOf(() => read(keys))).code).toBe('image-auth');
  });
});
