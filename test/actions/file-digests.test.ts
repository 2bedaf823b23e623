import { createHash } from 'node:crypto';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { chunkBytes, digestOf, digestsOf, filesBelow } from '../../src/actions/file-digests.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const write = (name: string, bytes: string | Buffer): void => writeFileSync(scratch.at(name), bytes);

/** FIPS 180-2, and sha256sum(1) for the file that takes more than one read. */
const vectors = {
  empty: ['', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
  abc: ['abc', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
  two: [
    'abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq',
    '248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1',
  ],
  million: ['a'.repeat(1_000_000), 'cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0'],
} as const;

describe('digestOf', () => {
  it.each(Object.entries(vectors))('should know the vector %s', async (name, [text, sha256]) => {
    write(name, text);
    expect(await digestOf(scratch.at(name))).toEqual({ bytes: text.length, sha256 });
  });

  // The formula that docs/security.md gives to other programs.
  it('should digest the digests of the pieces of a file that is larger than one', async () => {
    const bytes = Buffer.alloc(2 * chunkBytes + 7);
    for (let i = 0; i < bytes.length; i += 4093) bytes[i] = i % 251;
    write('large', bytes);
    write('fits', bytes.subarray(0, chunkBytes));
    const sha256 = (data: Buffer) => createHash('sha256').update(data).digest();
    const pieces = [0, 1, 2].map((n) => sha256(bytes.subarray(n * chunkBytes, (n + 1) * chunkBytes)));
    expect(await digestOf(scratch.at('large'))).toEqual({
      bytes: bytes.length,
      sha256: sha256(Buffer.concat(pieces)).toString('hex'),
      chunks: { bytes: chunkBytes },
    });
    expect(await digestOf(scratch.at('fits'))).toEqual({
      bytes: chunkBytes,
      sha256: pieces[0]?.toString('hex'),
    });
  });

  it('should read a file that takes several reads, to its last byte', async () => {
    write('zeros', Buffer.alloc((3 << 20) + 1));
    const { bytes, sha256 } = await digestOf(scratch.at('zeros'));
    write('zeros', Buffer.alloc((3 << 20) + 1).fill(1, 3 << 20));
    expect(bytes).toBe((3 << 20) + 1);
    expect((await digestOf(scratch.at('zeros'))).sha256).not.toBe(sha256);
  });

  it('should fail for a file that is missing, and for a directory', async () => {
    mkdirSync(scratch.at('directory'));
    await expect(digestOf(scratch.at('missing'))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(digestOf(scratch.at('directory'))).rejects.toMatchObject({ code: 'EISDIR' });
  });
});

describe('digestsOf', () => {
  it('should give every file its own digest, in the order asked for, whichever was read first', async () => {
    const names = Array.from({ length: 25 }, (_, n) => `f${n}`);
    for (const [n, name] of names.entries()) write(name, 'x'.repeat((25 - n) * 40_000));
    const digests = await digestsOf(scratch.path, names);
    expect(Object.keys(digests)).toEqual(names);
    for (const name of names) expect(digests[name]).toEqual(await digestOf(scratch.at(name)));
  });

  it('should give none for no file', async () => {
    expect(await digestsOf(scratch.path, [])).toEqual({});
  });

  it('should fail where one of them cannot be read', async () => {
    write('a', 'a');
    await expect(digestsOf(scratch.path, ['a', 'missing'])).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('filesBelow', () => {
  it('should name the regular files at every depth, by their path, sorted', () => {
    for (const name of ['b', 'a/z', 'a/b/c', 'a.b']) write(name, '');
    mkdirSync(scratch.at('empty'));
    expect(filesBelow(scratch.path)).toEqual(['a.b', 'a/b/c', 'a/z', 'b']);
  });

  it('should leave out symlinks to files', () => {
    write('outside', '');
    mkdirSync(scratch.at('image'));
    symlinkSync(scratch.at('outside'), scratch.at('image/file'));
    expect(filesBelow(scratch.at('image'))).toEqual([]);
  });

  // Node's recursive readdir follows them; two that name their own directory make a listing without an end.
  it('should not follow symlinks to directories', () => {
    write('image/file', '');
    symlinkSync('.', scratch.at('image/loop'));
    expect(filesBelow(scratch.at('image'))).toEqual(['file']);
  });
});
