import { execFileSync } from 'node:child_process';
import { chmodSync, lchownSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { refuseUnsafeImage, refuseUnsafePlace } from '../../src/actions/image-place.ts';
import { smallFiles, writeSmallImage } from '../support/action-image.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();
const root = () => scratch.at('root');
const roots = () => ({ checkpointRoot: root(), allowedRoots: [root()] });
const key = 'job';
const place = (imageRoot = root()) => ({ imageRoot, key });
const inImage = (...names: string[]) => scratch.at('root', key, '3', ...names);
const image = () => ({ generation: 3, directory: join(root(), key, '3') });
const judge = () => refuseUnsafeImage(roots(), place(), image());

beforeEach(async () => {
  mkdirSync(join(root(), key, '3'), { recursive: true, mode: 0o700 });
  await writeSmallImage(image().directory);
  symlinkSync('3', join(root(), key, 'current'));
});

const everything = ['', 'checkpoint', ...Object.keys(smallFiles), 'tardis.json'];

describe("a job's directory", () => {
  const at = (imageRoot: string, own: string) => () => refuseUnsafePlace(roots(), { imageRoot, key: own });
  beforeEach(() => mkdirSync(join(root(), key, 'ledger'), { mode: 0o700 }));

  it.each(['', '3', '3/checkpoint', 'ledger', 'not-yet'])(
    "is refused in another job's (%s)",
    async (inside) => {
      const { code, message } = await problemOf(at(join(root(), key, inside), 'mine'));
      expect([code, message]).toEqual([
        'image-place',
        expect.stringContaining(`is in ${join(root(), key)}, which is`),
      ]);
    },
  );

  it("is refused in another job's that a symlink leads into", async () => {
    symlinkSync(key, join(root(), 'way'));
    expect((await problemOf(at(join(root(), 'way'), 'mine'))).code).toBe('image-place');
  });

  it('is refused around those of other jobs', async () => {
    const team = join(root(), 'team');
    mkdirSync(join(team, 'theirs', 'ledger'), { recursive: true, mode: 0o700 });
    const { code, message } = await problemOf(at(root(), 'team'));
    expect([code, message]).toEqual([
      'image-place',
      expect.stringContaining(`${team} holds theirs, which is`),
    ]);
    expect(at(team, 'theirs')).not.toThrow();
    expect(at(team, 'new')).not.toThrow();
  });

  it('is taken beside others, and with all that Tardis makes in it', () => {
    for (const name of ['4.partial', '2.removed']) mkdirSync(join(root(), key, name), { mode: 0o700 });
    writeFileSync(join(root(), key, '3.failed.jsonl'), '');
    expect(at(root(), key)).not.toThrow();
    expect(at(root(), 'another')).not.toThrow();
  });
});

describe('an image', () => {
  it('should be taken as it was made', () => {
    expect(judge).not.toThrow();
  });

  it.each(everything)('should be refused where others may write "%s"', async (name) => {
    for (const bits of [0o020, 0o002]) {
      chmodSync(inImage(name), 0o700 | bits);
      const problem = await problemOf(judge);
      expect(problem.code).toBe('image-mode');
      expect(problem.message).toContain(`${inImage(name)} has mode 07${bits === 2 ? '02' : '20'}, expected`);
      expect(problem.message).toContain('chmod it go-w, or use another place');
    }
  });

  it.skipIf(!isRoot).each([...everything, '..', '../current'])(
    'should be refused where "%s" is another user’s',
    async (name) => {
      lchownSync(inImage(name), 1000, 0);
      const problem = await problemOf(judge);
      expect(problem.code).toBe('image-owner');
      expect(problem.message).toContain(`${inImage(name)} belongs to the user 1000, expected root; `);
    },
  );

  it('should be refused where others may write the directory of its key, sticky or not', async () => {
    for (const mode of [0o777, 0o1777, 0o720]) {
      chmodSync(join(root(), key), mode);
      expect((await problemOf(judge)).code).toBe('image-mode');
    }
  });

  it('should be refused where it, or the directory of its key, is a symlink', async () => {
    renameSync(image().directory, scratch.at('elsewhere'));
    symlinkSync(scratch.at('elsewhere'), image().directory);
    expect(await problemOf(judge)).toMatchObject({
      code: 'image-place',
      message: expect.stringContaining(`${image().directory} is a symlink, expected a directory; put`),
    });
    rmSync(image().directory);
    renameSync(scratch.at('elsewhere'), image().directory);
    renameSync(join(root(), key), scratch.at('moved'));
    symlinkSync(scratch.at('moved'), join(root(), key));
    expect(await problemOf(judge)).toMatchObject({
      code: 'image-place',
      message: expect.stringContaining(`${join(root(), key)} is a symlink, expected a directory; put`),
    });
  });

  // Reading a pipe as a manifest would wait for ever.
  it('should be refused where a named pipe or a symlink stands for one of its files', async () => {
    rmSync(inImage('tardis.json'));
    execFileSync('mkfifo', [inImage('tardis.json')]);
    expect(await problemOf(judge)).toMatchObject({
      code: 'image-file-extra',
      message: expect.stringContaining('tardis.json is a named pipe; an image holds files'),
    });
    rmSync(inImage('tardis.json'));
    symlinkSync('/etc/passwd', inImage('tardis.json'));
    expect((await problemOf(judge)).code).toBe('image-file-extra');
  });
});

describe('the place of a key', () => {
  it('should be taken where nothing is yet', () => {
    const nowhere = scratch.at('nowhere/roots');
    expect(() =>
      refuseUnsafePlace(
        { checkpointRoot: nowhere, allowedRoots: [nowhere] },
        { imageRoot: join(nowhere, 'a'), key },
      ),
    ).not.toThrow();
  });

  it('should be taken where the configured root is a symlink, or sticky', () => {
    symlinkSync(root(), scratch.at('link'));
    const linked = { checkpointRoot: scratch.at('link'), allowedRoots: [scratch.at('link')] };
    expect(() => refuseUnsafePlace(linked, place(scratch.at('link')))).not.toThrow();
    expect(() => refuseUnsafePlace(linked, place(scratch.at('link', 'team')))).not.toThrow();
    chmodSync(root(), 0o1777);
    expect(judge).not.toThrow();
  });

  it('should be taken through a symlink of root’s that stays inside', () => {
    mkdirSync(join(root(), 'a/b'), { recursive: true });
    symlinkSync('a/b', join(root(), 'short'));
    expect(() => refuseUnsafePlace(roots(), place(join(root(), 'short')))).not.toThrow();
  });

  // Whoever may rename there exchanges the directory after it has been looked at.
  it('should be refused where others may write any directory above it, up to the root', async () => {
    const way = ['', 'a', 'a/b'];
    mkdirSync(join(root(), 'a/b'), { recursive: true });
    for (const name of way) {
      chmodSync(join(root(), name), 0o777);
      const problem = await problemOf(() => refuseUnsafePlace(roots(), place(join(root(), 'a/b'))));
      expect(problem.code).toBe('image-mode');
      expect(problem.message).toContain(`${join(root(), name)} has mode 0777`);
      chmodSync(join(root(), name), 0o755);
    }
  });

  it.skipIf(!isRoot)('should be refused through a symlink that another user has planted', async () => {
    mkdirSync(join(root(), 'mine'));
    symlinkSync('mine', join(root(), 'theirs'));
    lchownSync(join(root(), 'theirs'), 1000, 0);
    const problem = await problemOf(() => refuseUnsafePlace(roots(), place(join(root(), 'theirs'))));
    expect(problem).toMatchObject({
      code: 'image-owner',
      message: expect.stringContaining('/theirs belongs'),
    });
  });

  it('should be refused where a symlink leads out of the roots, there or not', async () => {
    mkdirSync(scratch.at('outside'));
    for (const target of [scratch.at('outside'), scratch.at('not-yet'), '../../..', '/']) {
      symlinkSync(target, join(root(), 'out'));
      for (const name of ['out', 'out/deeper']) {
        const problem = await problemOf(() => refuseUnsafePlace(roots(), place(join(root(), name))));
        expect(problem.code).toBe('image-place');
        expect(problem.message).toMatch(/is really .*, expected a directory inside one of .*allowedRoots$/);
      }
      rmSync(join(root(), 'out'));
    }
  });

  it('should be refused where a file has its name', async () => {
    writeFileSync(join(root(), 'file'), '');
    const problem = await problemOf(() => refuseUnsafePlace(roots(), { imageRoot: root(), key: 'file' }));
    expect(problem.message).toContain(
      `${join(root(), 'file')} is a file, expected a directory; take it away`,
    );
  });
});
