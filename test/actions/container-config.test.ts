import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  compressionLevelOf,
  isEnabled,
  readContainerConfig,
  settingsOf,
  verifyByRestoreOf,
} from '../../src/actions/container-config.ts';
import { useScratch } from '../support/action-scratch.ts';
import { containerdSpec } from '../support/action-specs.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();

/** Reads a bundle whose config.json holds this. */
function read(spec: unknown) {
  const path = scratch.at('bundle', 'config.json');
  writeFileSync(path, typeof spec === 'string' ? spec : JSON.stringify(spec));
  return readContainerConfig(dirname(path));
}

const least = { root: { path: 'rootfs' }, process: {} };
const withEnv = (...env: string[]) => read({ ...least, process: { env } }).env;

describe('readContainerConfig', () => {
  it("should read a spec as containerd's CRI plugin writes it", () => {
    const text = containerdSpec();
    const config = read(text);
    expect(config.text).toBe(text);
    expect(config.rootfs).toBe(scratch.at('bundle', 'rootfs'));
    expect(config.terminal).toBe(false);
    expect(config.env.get('TARDIS_CHECKPOINT_KEY')).toBe('job-7');
    expect(config.shape).toEqual({
      args: ['/bin/job', '--all'],
      cwd: '/work',
      user: { uid: 4294967295, gid: 65534, additionalGids: [65534] },
      capabilities: { bounding: ['CAP_CHOWN'], effective: ['CAP_CHOWN'] },
      terminal: false,
      namespaces: ['ipc', 'mount', 'network', 'pid', 'uts'],
      mountDestinations: ['/dev/shm', '/etc/hosts', '/proc'],
    });
  });

  it('should read the least that a spec can be', () => {
    const config = read(least);
    expect([...config.env]).toEqual([]);
    expect(config).toMatchObject({
      terminal: false,
      hasFreshNetwork: false,
      rootfs: scratch.at('bundle/rootfs'),
    });
    expect(config.shape).toEqual({
      args: [],
      cwd: '/',
      user: null,
      capabilities: null,
      terminal: false,
      namespaces: [],
      mountDestinations: [],
    });
  });

  it('should take an absolute root file system as it is', () => {
    expect(read({ ...least, root: { path: '/var/lib/docker/overlay2/x/merged' } }).rootfs).toBe(
      '/var/lib/docker/overlay2/x/merged',
    );
  });

  it.each([
    ['its own', [{ type: 'network' }], true],
    ['one with an empty path', [{ type: 'network', path: '' }], true],
    ["a sandbox's", [{ type: 'network', path: '/proc/7/ns/net' }], false],
    ["the host's", [{ type: 'pid' }], false],
    ['none said', null, false],
  ])('should tell a network namespace that is %s', (_, namespaces, fresh) => {
    expect(read({ ...least, linux: { namespaces } }).hasFreshNetwork).toBe(fresh);
  });

  it('should split every variable at its first equals sign, the last one counting', () => {
    expect([...withEnv('A=1', 'B=x=y', 'C=', 'A=2', '=nameless', 'D', '')]).toEqual([
      ['A', '2'],
      ['B', 'x=y'],
      ['C', ''],
    ]);
  });

  it.each([
    ['empty', '', /JSON/],
    ['torn', '{"root": {"path": "root', /JSON/],
    ['null', 'null', /expected object/],
    ['a list', '[]', /expected object/],
    ['without a root', { process: {} }, /root/],
    ['without a process', { root: { path: 'r' } }, /process/],
    ['with words for arguments', { ...least, process: { args: 'sh' } }, /args/],
    ['with a number in its environment', { ...least, process: { env: ['A=1', 2] } }, /env/],
    ['with a mount that goes nowhere', { ...least, mounts: [{ type: 'proc' }] }, /destination/],
  ])('should refuse a config.json that is %s, in one line', async (_, spec, message) => {
    const problem = await problemOf(() => read(spec));
    expect(problem.code).toBe('container-config');
    expect(problem.message).toMatch(message);
    expect(problem.message).toContain(`cannot understand ${scratch.at('bundle', 'config.json')}: `);
    expect(problem.message).not.toContain('\n');
  });

  it('should refuse a bundle without a config.json', async () => {
    mkdirSync(scratch.at('empty'));
    const problem = await problemOf(() => readContainerConfig(scratch.at('empty')));
    expect(problem).toMatchObject({ code: 'container-config', message: expect.stringContaining('ENOENT') });
  });
});

describe('isEnabled', () => {
  it.each(['1', 'true', 'TRUE', 'True'])('should be so for TARDIS_ENABLE=%s', (value) => {
    expect(isEnabled(withEnv(`TARDIS_ENABLE=${value}`))).toBe(true);
  });

  it.each(['0', '', 'false', 'yes', 'on', '11', ' 1', 'true '])(
    'should not be so for TARDIS_ENABLE=%j',
    (value) => {
      expect(isEnabled(withEnv(`TARDIS_ENABLE=${value}`))).toBe(false);
    },
  );

  it.each([
    [[]],
    [['TARDIS_ENABLE']],
    [['MY_TARDIS_ENABLE=1']],
    [['tardis_enable=1']],
    [['X=TARDIS_ENABLE=1']],
  ])('should not be so for %j', (env) => {
    expect(isEnabled(withEnv(...env))).toBe(false);
  });
});

const host = { checkpointRoot: '/efs/jobs', allowedRoots: ['/efs/jobs', '/roots/', '/deep/er'] };
const settings = (env: Record<string, string>, id = 'abc') =>
  settingsOf(id, new Map(Object.entries(env)), host);

describe('the checkpoint key', () => {
  it.each([
    ['the one given', { TARDIS_CHECKPOINT_KEY: 'k', AWS_BATCH_JOB_ID: 'b' }, 'k'],
    ["AWS Batch's job, where none is given", { AWS_BATCH_JOB_ID: 'b' }, 'b'],
    ["AWS Batch's job, where an empty one is", { TARDIS_CHECKPOINT_KEY: '', AWS_BATCH_JOB_ID: 'b' }, 'b'],
    ["the container's id, where there is no job", {}, 'abc'],
    ["the container's id, where the job is empty", { AWS_BATCH_JOB_ID: '' }, 'abc'],
  ])('should be %s', (_, env, key) => {
    expect(settings(env)).toEqual({ key, imageRoot: '/efs/jobs' });
  });

  it.each([
    'a',
    '0a',
    '7.partials',
    'currents',
    'A.b_c:d-9',
    '6f9b3c3e-1d2a-4c5b-8e7f-0a1b2c3d4e5f:17',
    `a${'b'.repeat(199)}`,
  ])('should be allowed to be %s', (key) => {
    expect(settings({ TARDIS_CHECKPOINT_KEY: key }).key).toBe(key);
  });

  it.each([
    '.',
    '..',
    '.a',
    '-a',
    ':a',
    '_a',
    'a/b',
    '../a',
    'a b',
    'a\n',
    'é',
    'a\0',
    `a${'b'.repeat(200)}`,
  ])('should be refused as %j, with what it should be', async (key) => {
    const problem = await problemOf(() => settings({ TARDIS_CHECKPOINT_KEY: key }));
    expect(problem.code).toBe('checkpoint-key');
    expect(problem.message).toContain(
      `the checkpoint key ${JSON.stringify(key)} is refused: expected a letter`,
    );
    expect(problem.message).toContain('set TARDIS_CHECKPOINT_KEY to such a word');
  });

  it.each(['1', '0', '42.partial', '7.removed', '7.failed.jsonl', 'ledger', 'current', 'current.3'])(
    'should be refused as %s, which is a name in a job’s directory',
    async (key) => {
      const { code, message } = await problemOf(() => settings({ TARDIS_CHECKPOINT_KEY: key }));
      expect([code, message]).toEqual([
        'checkpoint-key',
        expect.stringContaining(`"${key}" is refused: it is`),
      ]);
    },
  );

  it('should be of the form that the host binds keys to, as a whole', async () => {
    const bound = { ...host, keyPattern: 'team-a-[0-9]+|other' };
    const of = (key: string) => settingsOf('abc', new Map([['TARDIS_CHECKPOINT_KEY', key]]), bound);
    expect([of('team-a-7').key, of('other').key]).toEqual(['team-a-7', 'other']);
    for (const key of ['team-b-7', 'team-a-7x', 'another'])
      expect((await problemOf(() => of(key))).message).toContain('keys of the form team-a-[0-9]+|other');
  });

  it("should be refused where it is AWS Batch's or the container's id and no such word", async () => {
    expect((await problemOf(() => settings({ AWS_BATCH_JOB_ID: 'a/b' }))).message).toContain('"a/b"');
    expect((await problemOf(() => settings({}, 'a+b'))).message).toContain('"a+b"');
  });
});

describe('the place of the images', () => {
  it.each([
    ['/efs/jobs', '/efs/jobs'],
    ['/efs/jobs/a/b', '/efs/jobs/a/b'],
    ['/efs/jobs/', '/efs/jobs'],
    ['//efs/./jobs//a', '/efs/jobs/a'],
    ['/efs/jobs/a/../b', '/efs/jobs/b'],
    ['/efs/../efs/jobs', '/efs/jobs'],
    ['/roots', '/roots'],
    ['/roots/a', '/roots/a'],
    ['/deep/er/a', '/deep/er/a'],
    ['/efs/jobs/..a', '/efs/jobs/..a'],
  ])('should be %s where that is inside an allowed root', (path, imageRoot) => {
    expect(settings({ TARDIS_CHECKPOINT_HOST_PATH: path }).imageRoot).toBe(imageRoot);
  });

  it.each([
    '/',
    '/etc',
    '/efs',
    '/efs/jobs2',
    '/roots2',
    '/deep',
    '/efs/jobs/..',
    '/efs/jobs/../../etc',
    '/roots/../roots2/a',
    'efs/jobs',
    'efs/jobs/../../efs/jobs',
    './efs/jobs',
    '..',
    ' /efs/jobs',
  ])('should be refused as %s, with what may be done', async (path) => {
    const problem = await problemOf(() => settings({ TARDIS_CHECKPOINT_HOST_PATH: path }));
    expect(problem.code).toBe('checkpoint-path');
    expect(problem.message).toContain(
      `${JSON.stringify(path)} is refused: expected an absolute path inside one of /efs/jobs, /roots/, /deep/er; add it`,
    );
  });

  it('should be the default where the path is empty', () => {
    expect(settings({ TARDIS_CHECKPOINT_HOST_PATH: '' }).imageRoot).toBe('/efs/jobs');
  });

  it('should be anywhere where the host allows /', () => {
    const env = new Map([['TARDIS_CHECKPOINT_HOST_PATH', '/mnt/a']]);
    expect(settingsOf('abc', env, { checkpointRoot: '/c', allowedRoots: ['/'] }).imageRoot).toBe('/mnt/a');
  });

  it('should be refused where a symlink inside a root leads out of it, whatever its name', async () => {
    const root = scratch.at('roots/allowed');
    mkdirSync(root);
    mkdirSync(scratch.at('roots/outside'));
    const at = (path: string) =>
      settingsOf('abc', new Map([['TARDIS_CHECKPOINT_HOST_PATH', path]]), {
        checkpointRoot: root,
        allowedRoots: [root],
      });
    for (const target of ['../outside', scratch.at('roots/outside'), '../not-yet', '/']) {
      symlinkSync(target, join(root, 'link'));
      for (const path of [join(root, 'link'), join(root, 'link/new')]) {
        const problem = await problemOf(() => at(path));
        expect(problem.code).toBe('checkpoint-path');
        expect(problem.message).toMatch(
          /\(really \/.*\) is refused: expected an absolute path inside one of/,
        );
      }
      rmSync(join(root, 'link'));
    }
    symlinkSync('.', join(root, 'link'));
    expect(at(join(root, 'link/a')).imageRoot).toBe(join(root, 'link/a'));
  });

  it('should be inside an allowed root that is a symlink itself', () => {
    mkdirSync(scratch.at('really'));
    symlinkSync('really', scratch.at('root'));
    const roots = { checkpointRoot: '/c', allowedRoots: [scratch.at('root')] };
    const env = new Map([['TARDIS_CHECKPOINT_HOST_PATH', scratch.at('root/a')]]);
    expect(settingsOf('abc', env, roots).imageRoot).toBe(scratch.at('root/a'));
  });
});

describe('verifyByRestoreOf', () => {
  const given = (value: string) => new Map([['TARDIS_VERIFY_BY_RESTORE', value]]);

  it.each([
    ...['1', 'true', 'True'].map((value) => [value, true]),
    ...['0', 'false'].map((value) => [value, false]),
    ['', undefined],
  ] as [string, boolean | undefined][])('answers %j with %j', (value, expected) => {
    expect(verifyByRestoreOf(given(value))).toBe(expected);
  });

  it('leaves it to the host if nothing is said', () => {
    expect(verifyByRestoreOf(new Map())).toBeUndefined();
  });

  it.each(['yes', 'on', '2', ' 1'])('refuses %j, with the remedy', async (value) => {
    const roots = { checkpointRoot: '/c', allowedRoots: ['/c'] };
    const problem = await problemOf(() => settingsOf('job', given(value), roots));
    expect(problem.code).toBe('verify-by-restore');
    expect(problem.message).toContain(JSON.stringify(value));
    expect(problem.message).toContain('expected 1, true, 0 or false');
  });
});

describe('compressionLevelOf', () => {
  const levelOf = (given: string) => compressionLevelOf(new Map([['TARDIS_COMPRESSION_LEVEL', given]]));

  it.each(['0', '1', '09', '19'])('should take %s', (given) => {
    expect(levelOf(given)).toBe(Number(given));
  });

  it('should leave it to the host where nothing is said', () => {
    expect(compressionLevelOf(new Map())).toBeUndefined();
    expect(levelOf('')).toBeUndefined();
  });

  it.each(['20', '-1', '1.5', 'zstd', ' 3', '3\n'])('should refuse %j, with the way out', async (given) => {
    const problem = await problemOf(() =>
      settingsOf('job', new Map([['TARDIS_COMPRESSION_LEVEL', given]]), {
        checkpointRoot: '/c',
        allowedRoots: ['/c'],
      }),
    );
    expect(problem.code).toBe('compression-level');
    expect(problem.message).toContain(JSON.stringify(given));
    expect(problem.message).toContain('from 0 (none) to 19');
  });
});
