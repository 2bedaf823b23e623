import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type GcOptions, gc } from '../../src/cli/commands/gc.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { ageKey, writeKey } from '../support/key-ledger.ts';
import { projectRoot } from '../support/paths.ts';

const scratch = useScratch();
const root = () => scratch.at('images', 'x').slice(0, -2);
const env = (more: Record<string, string> = {}): NodeJS.ProcessEnv => ({
  PATH: process.env.PATH,
  TARDIS_CONFIG: scratch.at('tardis.json'),
  TARDIS_CHECKPOINT_ROOT: root(),
  TARDIS_RUN_DIR: scratch.at('run'),
  TARDIS_LOG_FILE: scratch.at('log'),
  ...more,
});

async function collect(options: Partial<GcOptions> = {}, more: Record<string, string> = {}) {
  let [out, err] = ['', ''];
  const status = await gc(
    { format: 'text', ...options },
    {
      cwd: scratch.path,
      env: env(more),
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
    },
  );
  return { status, out, err };
}
const json = async (options: Partial<GcOptions> = {}) =>
  JSON.parse((await collect({ format: 'json', ...options })).out);

function job(key: string, words: string, days = 8, imageRoot = root()): void {
  writeKey({ imageRoot, key }, words);
  ageKey({ imageRoot, key }, days);
}
const finished = 'life image 1 image 2 restored 2 finished:preempted';

describe('tardis gc', () => {
  it('removes what finished jobs have left, with a line for each and a sum', async () => {
    job('done', finished);
    job('done-before', 'life image 1 finished:failure', 60);
    job('killed', 'life image 1 killed:preempted', 900);
    const { status, out, err } = await collect();
    expect(out).toBe(
      `${root()}/done: removed 2 images, 12 bytes: the job ended by itself 8 days ago\n` +
        `${root()}/done-before: removed 1 image, 6 bytes: the job ended by itself 60 days ago\n` +
        'removed 3 images of 2 keys, 18 bytes\n',
    );
    expect([status, err]).toEqual([0, '']);
    expect(readdirSync(root())).toEqual(['killed']);
    const logged = readFileSync(scratch.at('log'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(logged).toMatchObject([
      { command: 'gc', key: 'done', reason: 'finished', generations: [1, 2] },
      { command: 'gc', key: 'done-before', generations: [1] },
    ]);
    expect(await collect()).toEqual({ status: 0, out: `nothing to remove in ${root()}\n`, err: '' });
  });

  it('with --dry-run says what it would remove, and removes nothing', async () => {
    job('done', finished);
    const before = readdirSync(root(), { recursive: true });
    expect((await collect({ dryRun: true })).out).toBe(
      `${root()}/done: would remove 2 images, 12 bytes: the job ended by itself 8 days ago\n` +
        'would remove 2 images of 1 key, 12 bytes\n',
    );
    expect(readdirSync(root(), { recursive: true })).toEqual(before);
    expect(existsSync(scratch.at('log'))).toBe(false);
  });

  it('with --unclaimed-after removes what nobody has taken up for so many days, and only then', async () => {
    job('killed', 'life image 1 killed:preempted', 31);
    job('always', 'life image 1 finished:always', 31);
    job('lost', 'life image 1', 31);
    job('young', 'life image 1 killed:preempted', 29);
    expect((await collect()).out).toBe(`nothing to remove in ${root()}\n`);
    const { out } = await collect({ unclaimedAfter: 30 });
    expect(out.split('\n').slice(0, 4)).toEqual([
      `${root()}/always: removed 1 image, 6 bytes: nobody has taken the job up for 31 days`,
      `${root()}/killed: removed 1 image, 6 bytes: nobody has taken the job up for 31 days`,
      `${root()}/lost: removed 1 image, 6 bytes: nobody has taken the job up for 31 days`,
      'removed 3 images of 3 keys, 18 bytes',
    ]);
    expect(readdirSync(root(), { recursive: true }).sort()).toEqual([
      ...['lost', 'lost/ledger', 'lost/ledger/1', 'lost/ledger/2', 'lost/ledger/3'],
      ...['young', 'young/1', 'young/1/checkpoint', 'young/1/checkpoint/pages-1.img'],
      ...['young/ledger', 'young/ledger/1', 'young/ledger/2', 'young/ledger/3'],
    ]);
  });

  it('tells all of it as JSON', async () => {
    job('done', finished);
    job('of-a-later-tardis', finished);
    writeFileSync(join(root(), 'of-a-later-tardis', 'ledger', '9'), '{"kind":"later"}');
    expect(await json({ dryRun: true })).toEqual({
      dryRun: true,
      roots: [{ root: root(), problem: null }],
      keys: [
        {
          ...{ root: root(), key: 'done', reason: 'finished', ageSeconds: 8 * 86_400 },
          ...{ images: [1, 2], bytes: 12, removed: false, problem: null, failed: false },
        },
        {
          ...{ root: root(), key: 'of-a-later-tardis', reason: null, ageSeconds: 0 },
          ...{
            images: [],
            bytes: 0,
            removed: false,
            problem: expect.stringMatching(/^entry 9 of /),
            failed: false,
          },
        },
      ],
      images: 2,
      bytes: 12,
    });
    expect((await json()).keys[0]).toMatchObject({ key: 'done', removed: true });
    expect(await json()).toMatchObject({
      keys: [{ key: 'of-a-later-tardis' }],
      images: 0,
      bytes: 0,
    });
  });

  it('names what it leaves alone, on stderr, which is no failure', async () => {
    job('of-a-later-tardis', finished);
    writeFileSync(join(root(), 'of-a-later-tardis', 'ledger', '9'), '{"kind":"later"}');
    const { status, out, err } = await collect();
    expect([status, out]).toEqual([0, `nothing to remove in ${root()}\n`]);
    expect(err).toMatch(/of-a-later-tardis: left alone: entry 9 of .* cannot be understood, expected one/);
  });

  it('fails if a key cannot be read, and goes on with the others', async () => {
    for (const key of ['one', 'two']) job(key, finished);
    mkdirSync(join(root(), 'one', 'ledger', '9'));
    const { status, out, err } = await collect();
    expect(err).toMatch(/one: not removed: EISDIR/);
    expect(out).toContain(`${root()}/two: removed 2 images`);
    expect(status).toBe(1);
  });

  it('does not look at what is no key', async () => {
    mkdirSync(join(root(), 'data', '1'), { recursive: true });
    symlinkSync('data', join(root(), 'link'));
    writeFileSync(join(root(), 'file'), '');
    expect(await collect({ unclaimedAfter: 1 })).toMatchObject({ status: 0, err: '' });
    expect(readdirSync(root()).sort()).toEqual(['data', 'file', 'link']);
  });

  it('goes through 250 keys', async () => {
    for (let n = 0; n < 250; n++) job(`job-${n}`, n % 50 === 0 ? finished : 'life image 1 killed:failure');
    expect((await collect()).out.split('\n').slice(-2)).toEqual([
      'removed 10 images of 5 keys, 60 bytes',
      '',
    ]);
    expect(readdirSync(root())).toHaveLength(245);
  });

  describe('of its directories', () => {
    const [a, b] = [() => scratch.at('a', 'x').slice(0, -2), () => scratch.at('b', 'x').slice(0, -2)];

    it('goes through checkpointRoot and allowedRoots, or those that --root names', async () => {
      const below = join(b(), 'team');
      for (const [key, place] of [
        ['one', root()],
        ['two', a()],
        ['three', b()],
        ['four', below],
      ] as const)
        job(key, finished, 8, place);
      const roots = { TARDIS_ALLOWED_ROOTS: `${a()}:${b()}` };
      expect((await collect({ root: ['b/team'] }, roots)).out).toContain(`${below}/four: removed 2 images`);
      const { status, out } = await collect({}, roots);
      expect(out.match(/\/\w+(?=: removed)/g)).toEqual(['/one', '/two', '/three']);
      expect(status).toBe(0);
    });

    it('takes a missing one for an empty one, unless it is named', async () => {
      rmSync(root(), { recursive: true });
      expect(await collect()).toEqual({ status: 0, out: `nothing to remove in ${root()}\n`, err: '' });
      const named = await collect({ root: [join(root(), 'missing')] });
      expect(named).toMatchObject({ status: 1, err: expect.stringContaining('found no directory') });
    });

    it('refuses one outside of them, and one that others may write', async () => {
      job('done', finished, 8, a());
      const outside = await collect({ root: [a()] });
      expect(outside.status).toBe(1);
      expect(outside.err).toContain(`${a()}, expected a directory inside one of ${root()}`);
      expect(readdirSync(a())).toEqual(['done']);
      if (!isRoot) return;
      job('done', finished);
      chmodSync(root(), 0o770);
      expect(await collect()).toMatchObject({ status: 1, err: expect.stringContaining('has mode 0770') });
      expect(readdirSync(root())).toEqual(['done']);
    });

    it('says which does not answer, and goes on with the others', async () => {
      for (const place of [a(), b()]) job('done', finished, 8, place);
      // A file server that is gone: whoever asks sleeps.
      const pid = scratch.at('pid');
      const mkdir = `#!/bin/sh\ncase "$*" in */a/*) echo $$ >${pid}; exec sleep 600 ;; esac\nexec /bin/mkdir "$@"\n`;
      writeFileSync(scratch.at('bin', 'mkdir'), mkdir, { mode: 0o755 });
      try {
        const { status, out, err } = await collect(
          {},
          {
            PATH: `${scratch.at('bin')}${delimiter}${process.env.PATH}`,
            TARDIS_ALLOWED_ROOTS: `${a()}:${b()}`,
            TARDIS_SHARE_TIMEOUT_SECONDS: '1',
          },
        );
        expect(err).toMatch(new RegExp(`^tardis: ${a()} did not answer within 1 s`));
        expect(out).toContain(`${b()}/done: removed 2 images`);
        expect(status).toBe(1);
        expect(readdirSync(a())).toEqual(['done']);
      } finally {
        process.kill(Number(readFileSync(pid, 'utf8')), 'SIGKILL');
      }
    });
  });

  it('fails if something cannot be removed, and goes on with the others', async () => {
    for (const key of ['one', 'two']) job(key, finished);
    const rm = '#!/bin/sh\ncase "$*" in */one/*) exit 1 ;; esac\nexec /bin/rm "$@"\n';
    writeFileSync(scratch.at('bin', 'rm'), rm, { mode: 0o755 });
    const { status, out, err } = await collect(
      {},
      { PATH: `${scratch.at('bin')}${delimiter}${process.env.PATH}` },
    );
    expect(err).toMatch(/one: not removed: rm could not remove .*1\.removed/);
    expect(out).toMatch(/two: removed 2 images/);
    expect(status).toBe(1);
    expect((await collect()).out).toMatch(/one: removed 0 images, 12 bytes: left half made, or half removed/);
    expect(readdirSync(root())).toEqual([]);
  });

  it('warns of a setting that it cannot use', async () => {
    job('done', finished, 6);
    const { status, err } = await collect({}, { TARDIS_KEEP_FINISHED_SECONDS: '7d' });
    expect([status, err]).toEqual([
      0,
      expect.stringMatching(/keepFinishedSeconds: .*; the default is taken\n$/),
    ]);
    expect(readdirSync(root())).toEqual(['done']);
  });

  it('is a command of the program, with its exit status and its refusals', () => {
    job('done', finished);
    const program = join(projectRoot, 'src/cli/tardis.ts');
    const tardis = (...args: string[]) =>
      spawnSync(process.execPath, [program, 'gc', ...args], { encoding: 'utf8', env: env() });
    for (const days of ['0.9', 'week'])
      expect(tardis('--unclaimed-after', days)).toMatchObject({ status: 1, stdout: '' });
    expect(tardis('--root', scratch.at('missing'))).toMatchObject({ status: 1 });
    expect(tardis('--dry-run').stdout).toContain('would remove 2 images of 1 key');
    expect(tardis()).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('removed 2 images of 1 key'),
    });
    expect(tardis('--help').stdout).toContain('--unclaimed-after is at your own risk');
  });
});
