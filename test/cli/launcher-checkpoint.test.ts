import { cpSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { indexEntryOf } from '../../src/actions/container-index.ts';
import { installCopy, type LauncherBench, launcherBench } from '../support/launcher-bench.ts';

let installation: string;
let bench: LauncherBench;

beforeAll(() => {
  installation = installCopy();
});
afterAll(() => rmSync(installation, { recursive: true }));
beforeEach(() => {
  bench = launcherBench(installation);
  const entry = indexEntryOf(bench.runDir, bench.root, 'web');
  mkdirSync(join(entry, '..'), { recursive: true });
  symlinkSync(bench.enabled, entry);
});
afterEach(() => bench[Symbol.dispose]());

const checkpoint = (...words: string[]) => ['--root', bench.root, 'checkpoint', ...words, 'web'];

/** runc's own checkpoint would end the job, and no image would outlive the host. */
async function expectRefusal(line: string[], reason: RegExp, options = {}): Promise<void> {
  const { status, stdout, stderr } = await bench.call(line, options);
  expect([status, stdout]).toEqual([1, '']);
  expect(stderr).toMatch(reason);
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(bench.received()).toEqual([]);
}

describe('a checkpoint of an enabled container is refused, and runc is not called, if', () => {
  const own = (home: string) => {
    for (const part of ['bin', 'dist'])
      cpSync(join(installation, part), join(home, part), { recursive: true });
    symlinkSync(join(installation, 'node_modules'), join(home, 'node_modules'));
    return { launcher: join(home, 'bin/tardis-runc') };
  };

  it('the program is missing', async () => {
    const home = join(bench.dir, 'home');
    const options = own(home);
    rmSync(join(home, 'dist'), { recursive: true });
    await expectRefusal(checkpoint(), /it is incomplete, expected \S+\/dist\/tardis-runc\.cjs/, options);
    expect(bench.logged()).toEqual([
      expect.objectContaining({ msg: expect.stringMatching(/incomplete.*the checkpoint is refused/) }),
    ]);
  });

  it('Node is missing', async () => {
    const options = own(join(bench.dir, 'home'));
    rmSync(join(bench.dir, 'home/node_modules'));
    await expectRefusal(checkpoint(), /and a Node below/, options);
  });

  it('the program is cut short', async () => {
    const home = join(bench.dir, 'home');
    const options = own(home);
    truncateSync(join(home, 'dist/tardis-runc.cjs'), 200_000);
    await expectRefusal(checkpoint(), /Tardis cannot be loaded .*the checkpoint is refused/, options);
  });

  it('a setting without a substitute is broken', async () => {
    bench.configure({ realRunc: bench.runc.path, runDir: bench.runDir, checkpointRoot: 'relative' });
    writeFileSync(join(bench.enabled, 'tardis.json'), '{}');
    await expectRefusal(checkpoint(), /checkpointRoot: must be an absolute path|is not a state file/);
  });

  it('its state file cannot be read', async () => {
    writeFileSync(join(bench.enabled, 'tardis.json'), '{"schemaVersion": 99}');
    await expectRefusal(checkpoint(), /tardis\.json is not a state file of this Tardis/);
    await expectRefusal(checkpoint('--leave-running'), /tardis\.json is not a state file of this Tardis/);
  });

  it.each([
    ['was lost', () => rmSync(indexEntryOf(bench.runDir, bench.root, 'web'))],
    [
      'is another one since',
      () => bench.configure({ realRunc: bench.runc.path, runDir: join(bench.dir, 'run-2') }),
    ],
  ])('the index %s, and it was made without a state file', async (_, lose) => {
    lose();
    mkdirSync(join(bench.root, 'web'));
    const record = {
      init_process_pid: 1,
      init_process_start: 1,
      cgroup_paths: {},
      config: { labels: ['a=b', `bundle=${bench.enabled}`] },
    };
    writeFileSync(join(bench.root, 'web', 'state.json'), JSON.stringify(record));
    await expectRefusal(checkpoint(), /cannot read .*tardis\.json: ENOENT/);
  });

  it('its state file is missing', () => expectRefusal(checkpoint(), /cannot read .*tardis\.json: ENOENT/));

  it('the command line has a flag that is not known', () =>
    expectRefusal(checkpoint('--new-flag', 'value'), /new-flag/));

  it.each(['--lazy-pages', '--page-server=1.2.3.4:5', '--parent-path=../before'])(
    'it would not be a whole image: %s',
    (flag) => expectRefusal(checkpoint(flag), /makes no whole image/),
  );

  it('its words have bytes outside ASCII', () =>
    expectRefusal(checkpoint('--image-path', '/tmp/ümlaut'), /bytes outside ASCII/));

  it('its caller hands on descriptors', () =>
    expectRefusal(checkpoint(), /LISTEN_FDS/, { env: { ...bench.env, LISTEN_FDS: '1' } }));
});

describe('a checkpoint goes to runc as it came if', () => {
  const said = { status: 3, stdout: 'out\n', stderr: 'err\n' };
  it.each([
    ['it asks for help', ['--help']],
    ['it is a pre-dump, which ends nothing', ['--pre-dump']],
  ])('%s', async (_, words) => {
    bench.runc.answer(said);
    expect(await bench.call(checkpoint(...words))).toMatchObject(said);
    expect(bench.received()).toEqual([checkpoint(...words)]);
  });

  it('the container is none of Tardis’s, whatever the words are', async () => {
    bench.runc.answer(said);
    const line = ['--root', bench.root, 'checkpoint', '--new-flag', '--image-path', '/tmp/ü', 'other'];
    expect(await bench.call(line)).toMatchObject(said);
    expect(bench.received()).toEqual([line]);
  });
});
