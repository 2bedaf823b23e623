import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { handOver, takeBack } from '../../src/actions/hand-over.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();
const files = { 'core-1.img': 'core', 'pages-1.img': 'pages', 'empty.img': '' };
const partial = (): string => scratch.at('images', '3.partial');
const own = (name: string): string => join(partial(), 'checkpoint', name);
const into = (): string => scratch.at('caller', 'image');

/** Hands the image over, as the caller who named this directory has it. */
const hand = (imagePath = into()): Promise<void> => handOver(join(partial(), 'checkpoint'), imagePath);

function dump(): void {
  mkdirSync(join(partial(), 'checkpoint'), { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(own(name), text, { mode: 0o600 });
}
const contents = (directory: string) =>
  Object.fromEntries(
    readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), 'utf8')]),
  );

describe('handOver', () => {
  it('should give every file as a link, in a directory that it makes', async () => {
    dump();
    await hand();
    expect(contents(into())).toEqual(files);
    for (const name of Object.keys(files))
      expect(statSync(join(into(), name)).ino).toBe(statSync(own(name)).ino);
    expect(statSync(into()).mode & 0o777).toBe(0o700);
  });

  it('should be the same when it is done twice', async () => {
    dump();
    await hand();
    await hand();
    expect(contents(into())).toEqual(files);
    expect(contents(join(partial(), 'checkpoint'))).toEqual(files);
  });

  it('should take the place of an earlier dump in the same directory, and leave the rest alone', async () => {
    dump();
    mkdirSync(into());
    writeFileSync(join(into(), 'core-1.img'), 'old');
    writeFileSync(join(into(), 'notes'), 'mine');
    symlinkSync('/nowhere', join(into(), 'pages-1.img'));
    await hand();
    expect(contents(into())).toEqual({ ...files, notes: 'mine' });
  });

  it.skipIf(!isRoot)('should copy to another file system, for the owner only, twice too', async () => {
    dump();
    const other = scratch.tmpfs('tmpfs', 'size=1m');
    await hand(join(other, 'image'));
    await hand(join(other, 'image'));
    expect(contents(join(other, 'image'))).toEqual(files);
    const copy = statSync(join(other, 'image', 'pages-1.img'));
    expect([copy.dev === statSync(own('pages-1.img')).dev, copy.nlink, copy.mode & 0o777]).toEqual([
      false,
      1,
      0o600,
    ]);
  });

  it.skipIf(!isRoot)('should fail with the reason on a file system that is full, or read-only', async () => {
    dump();
    writeFileSync(own('pages-1.img'), Buffer.alloc(100_000));
    const full = scratch.tmpfs('full', 'size=16k');
    const problem = await problemOf(() => hand(full));
    expect(problem.code).toBe('image-path');
    expect(problem.message).toMatch(new RegExp(`^cannot put CRIU's files into ${full}: ENOSPC`));
    execFileSync('mount', ['-o', 'remount,ro', full]);
    expect((await problemOf(() => hand(full))).message).toContain('EROFS');
  });

  it('should fail with the reason where the caller named a file', async () => {
    dump();
    writeFileSync(into(), '');
    const problem = await problemOf(() => hand());
    expect(problem).toMatchObject({ code: 'image-path', message: expect.stringContaining('EEXIST') });
  });
});

describe('takeBack', () => {
  it('should remove what was given, and nothing of the caller', async () => {
    dump();
    mkdirSync(into());
    writeFileSync(join(into(), 'notes'), 'mine');
    await hand();
    takeBack(into(), partial());
    takeBack(into(), partial());
    expect(contents(into())).toEqual({ notes: 'mine' });
    expect(contents(join(partial(), 'checkpoint'))).toEqual(files);
  });

  it('should take back what was given of a part', () => {
    dump();
    mkdirSync(into());
    writeFileSync(join(into(), 'core-1.img'), 'core');
    takeBack(into(), partial());
    expect(contents(into())).toEqual({});
  });

  it('should do nothing where there is no image any more, or no directory of the caller', async () => {
    dump();
    takeBack(into(), partial());
    expect(existsSync(into())).toBe(false);
    await hand();
    rmSync(partial(), { recursive: true });
    takeBack(into(), partial());
    expect(contents(into())).toEqual(files);
  });
});
