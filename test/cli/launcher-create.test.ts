import { existsSync, mkdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { installCopy, type LauncherBench, launcherBench } from '../support/launcher-bench.ts';

let installation: string;
let bench: LauncherBench;

beforeAll(() => {
  installation = installCopy();
});
afterAll(() => rmSync(installation, { recursive: true }));
beforeEach(() => {
  bench = launcherBench(installation);
});
afterEach(() => bench[Symbol.dispose]());

const create = () => [
  ...['--root', bench.root, '--log', join(bench.dir, 'log.json'), '--log-format', 'json', 'create'],
  ...['--bundle', bench.enabled, '--pid-file', `${bench.enabled}/init.pid`, '--no-pivot', 'web'],
];
const state = () => JSON.parse(readFileSync(join(bench.enabled, 'tardis.json'), 'utf8'));
const entry = () => join(bench.runDir, 'containers', bench.root, 'web');

describe('an enabled create', () => {
  it('should leave its state beside the bundle and an entry in the index', async () => {
    bench.runc.answer({ stdout: 'out', stderr: 'err' });
    expect(await bench.call(create())).toMatchObject({ status: 0, stdout: 'out', stderr: 'err' });
    expect(bench.received()).toEqual([create()]);
    expect(state()).toMatchObject({
      id: 'web',
      root: bench.root,
      bundle: bench.enabled,
      key: 'web',
      snapshot: { value: { alive: 'created' } },
    });
    expect(readlinkSync(entry())).toBe(bench.enabled);
    expect(bench.logged().map(({ level }) => level)).not.toContain('warn');
    expect(existsSync(join(bench.dir, 'log.json'))).toBe(false);
  });

  it.each([
    [1, 1],
    [2, 2],
    [127, 127],
    [137, 1],
    [255, 1],
  ])(
    'should fail as runc does, which ends with %d: with %d, and leave no entry',
    async (status, answered) => {
      bench.runc.answer({ status, stderr: 'no\n' });
      expect(await bench.call(create())).toMatchObject({ status: answered, stdout: '', stderr: 'no\n' });
      expect(bench.received()).toEqual([create()]);
      expect(existsSync(entry())).toBe(false);
      expect(state().snapshot.value).toEqual({ alive: 'failed' });
    },
  );

  it('should say nothing on the streams of the container when it fails', async () => {
    bench.runc.answer({ status: 1 });
    expect(await bench.call(create())).toMatchObject({ status: 1, stdout: '', stderr: '' });
  });

  it('should be known to the launcher until its delete', async () => {
    await bench.call(create());
    for (const [command, value] of [
      ['start', { alive: 'running' }],
      ['pause', { alive: 'paused' }],
      ['kill', { alive: 'paused' }],
      ['resume', { alive: 'running' }],
      ['delete', 'deleted'],
    ] as const) {
      const line = ['--root', bench.root, command, 'web'];
      expect((await bench.call(line, { cwd: bench.dir })).status).toBe(0);
      expect(bench.received().at(-1)).toEqual(line);
      expect(state().snapshot.value).toEqual(value);
    }
    expect(existsSync(entry())).toBe(false);
    expect(bench.received()).toHaveLength(6);
  });

  const foundAgain = async (root: string, again: string) => {
    const lines = [
      ['--root', root, 'create', '--bundle', 'enabled', 'web'],
      ['--root', again, 'start', 'web'],
    ];
    for (const line of lines) expect((await bench.call(line, { cwd: bench.dir })).status).toBe(0);
    expect(bench.received()).toEqual(lines);
    expect(state()).toMatchObject({ root: bench.root, snapshot: { value: { alive: 'running' } } });
  };

  it.each([
    ['root', 'root'],
    ['./root/', 'root'],
    ['root', './/root'],
  ])('should be found again by a relative root: %s, then %s', foundAgain);

  it('should be found again by a root with a detour', () => foundAgain('root', 'bundle/../root'));

  it('should leave the state of a container alone that has the id already', async () => {
    await bench.call(create());
    const before = readFileSync(join(bench.enabled, 'tardis.json'), 'utf8');
    // What runc would have made.
    mkdirSync(join(bench.root, 'web'));
    bench.runc.answer({ status: 1, stderr: 'container with given ID already exists\n' });
    expect((await bench.call(create())).status).toBe(1);
    expect(readFileSync(join(bench.enabled, 'tardis.json'), 'utf8')).toBe(before);
    expect(readlinkSync(entry())).toBe(bench.enabled);
  });
});

describe('an enabled restore from an image that the caller names', () => {
  const restore = (...flags: string[]) => [
    ...[
      '--root',
      bench.root,
      'restore',
      ...flags,
      '--image-path',
      bench.dir,
      '--bundle',
      bench.enabled,
      'web',
    ],
  ];

  // A foreground one lasts as long as the job, so it was once done by Tardis and then by runc again.
  it.each([
    { title: 'in the foreground', flags: [] },
    { title: 'detached', flags: ['--detach'] },
  ])('should be done once, $title, and told of file locks', async ({ flags }) => {
    expect(await bench.call(restore(...flags))).toMatchObject({ status: 0, stderr: '' });
    const [, , word, ...rest] = restore(...flags);
    expect(bench.received()).toEqual([['--root', bench.root, word, '--file-locks', ...rest]]);
    expect(state().snapshot.value).toEqual({ alive: 'running' });
    expect(readlinkSync(entry())).toBe(bench.enabled);
    // CRIU reads its options below HOME: the image may hold connections that it is to close.
    const { HOME } = bench.runc.calls()[0]?.env ?? {};
    expect(readFileSync(join(HOME ?? '', '.criu/default.conf'), 'utf8')).toContain('tcp-close\n');
  });
});
