import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readManifestKeys } from '../../src/actions/manifest-keys.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();
const file = (): string => scratch.at('keys.json');
const hex = 'ab'.repeat(32);

function write(content: unknown, mode = 0o600): string {
  writeFileSync(file(), typeof content === 'string' ? content : JSON.stringify(content));
  chmodSync(file(), mode);
  return file();
}

describe('readManifestKeys', () => {
  it('should have none where the settings name no file', () => {
    expect(readManifestKeys(undefined)).toBeUndefined();
  });

  it('should read secrets in hexadecimal and in base64, padded or not', () => {
    const secret = Buffer.alloc(33, 0xfa);
    const keys = { a: hex, b: secret.toString('base64'), c: Buffer.alloc(32, 7).toString('base64') };
    const read = readManifestKeys(write({ current: 'b', keys: { ...keys, d: keys.c.replace(/=+$/, '') } }));
    expect(read?.current).toBe('b');
    expect(read?.secrets.get('a')).toEqual(Buffer.alloc(32, 0xab));
    expect(read?.secrets.get('b')).toEqual(secret);
    expect(read?.secrets.get('c')).toEqual(Buffer.alloc(32, 7));
    expect(read?.secrets.get('d')).toEqual(Buffer.alloc(32, 7));
  });

  it.each<[what: string, content: unknown, words: RegExp]>([
    ['empty', '', /is not JSON of the form/],
    ['torn', `{"current": "a", "keys": {"a": "${hex}`, /is not JSON of the form/],
    ['without keys', { current: 'a' }, /is not JSON of the form/],
    ['with a word too many', { current: 'a', keys: { a: hex }, old: [] }, /is not JSON of the form/],
    ['with a secret that is too short', { current: 'a', keys: { a: hex.slice(2) } }, /"a" that is not hex/],
    [
      'with a secret of other letters',
      { current: 'a', keys: { a: `${hex} ` } },
      /at least 32 bytes.*openssl/,
    ],
    ['whose current key is missing', { current: 'z', keys: { a: hex } }, /"z" is current.*one of a$/],
    ['whose current key is a word of the language', { current: 'toString', keys: { a: hex } }, /"toString"/],
  ])('should refuse a file that is %s, and say none of its secrets', async (_, content, words) => {
    const problem = await problemOf(() => readManifestKeys(write(content)));
    expect(problem).toMatchObject({ code: 'manifest-keys', message: expect.stringMatching(words) });
    expect(problem.message).toContain(`${file()} (setting manifestKeys)`);
    expect(problem.message).not.toContain(hex.slice(0, 8));
  });

  it.each([0o640, 0o604, 0o660, 0o622, 0o777])(
    'should refuse mode %o, with how it should be',
    async (mode) => {
      const path = write({ current: 'a', keys: { a: hex } }, mode);
      const problem = await problemOf(() => readManifestKeys(path));
      expect(problem.message).toContain(`has mode 0${mode.toString(8)}, expected 0600; chmod it`);
    },
  );

  it.skipIf(!isRoot)("should refuse another user's file", async () => {
    chownSync(write({ current: 'a', keys: { a: hex } }), 1000, 0);
    const problem = await problemOf(() => readManifestKeys(file()));
    expect(problem.message).toContain('belongs to the user 1000, expected root');
  });

  it('should refuse a file that is missing, and a directory', async () => {
    mkdirSync(scratch.at('directory'));
    const missing = await problemOf(() => readManifestKeys(scratch.at('missing')));
    expect(missing.message).toMatch(/cannot be read: ENOENT.*; put it there, or take the setting away$/);
    const directory = await problemOf(() => readManifestKeys(scratch.at('directory')));
    expect(directory.message).toContain('is no regular file');
  });
});
