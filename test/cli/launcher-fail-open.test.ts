import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
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

const said = { status: 3, stdout: 'out\n', stderr: 'err\n' };
const callersLog = () => join(bench.dir, 'log.json');
const lineFor = (command: string, ...words: string[]) => [
  ...['--root', bench.root, '--log', callersLog(), '--log-format', 'json', command],
  ...words,
  'web',
];
const create = (bundle = bench.enabled) =>
  lineFor('create', '--bundle', bundle, '--pid-file', `${bundle}/init.pid`);

/** The lines that Tardis has put into the caller's log. */
const callersLines = () => {
  const text = readFileSync(callersLog(), 'utf8');
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as { level: string; msg: string });
};

/** Calls once, and expects the real runc to have done all of it. */
async function expectRuncAlone(line: string[], env = bench.env): Promise<void> {
  const before = bench.received().length;
  bench.runc.answer(said);
  expect(await bench.call(line, { env })).toMatchObject(said);
  expect(bench.received().slice(before)).toEqual([line]);
}

function expectOneWarning(reason: RegExp): void {
  const warned = bench.logged().filter(({ level }) => level !== 'info');
  expect(warned).toEqual([
    expect.objectContaining({
      level: 'warn',
      msg: expect.stringMatching(reason),
      command: expect.any(String),
    }),
  ]);
  expect(callersLines()).toEqual([
    { level: 'warning', msg: expect.stringMatching(reason), time: expect.stringMatching(/^\d{4}-.*Z$/) },
  ]);
}

describe('an enabled create where the settings are broken', () => {
  const own = () => ({
    TARDIS_REAL_RUNC: bench.runc.path,
    TARDIS_LOG_FILE: bench.logFile,
    TARDIS_RUN_DIR: bench.runDir,
    TARDIS_CHECKPOINT_ROOT: bench.checkpointRoot,
  });
  const broken: { title: string; settle: () => void; reason: RegExp }[] = [
    { title: 'no JSON', settle: () => bench.configure('{"realRunc": '), reason: /tardis\.json is not JSON/ },
    { title: 'empty', settle: () => bench.configure(''), reason: /tardis\.json is not JSON/ },
    { title: 'a list', settle: () => bench.configure('[]'), reason: /something else than a JSON object/ },
    {
      title: 'of the wrong types',
      settle: () => bench.configure({ lockTimeoutSeconds: 'soon', allowedRoots: '/x' }),
      reason: /allowedRoots.*lockTimeoutSeconds/,
    },
    {
      title: 'a relative path',
      settle: () => bench.configure({ checkpointRoot: 'checkpoints', logFile: 3 }),
      reason: /must be an absolute path|logFile/,
    },
    {
      title: 'a directory',
      settle: () => {
        rmSync(bench.configFile);
        mkdirSync(bench.configFile);
      },
      reason: /cannot read .*tardis\.json: EISDIR/,
    },
    {
      title: 'a symlink to itself',
      settle: () => {
        rmSync(bench.configFile);
        symlinkSync(bench.configFile, bench.configFile);
      },
      reason: /cannot read .*tardis\.json: ELOOP/,
    },
  ];

  it.each(broken)(
    'should be done by the real runc alone when they are $title',
    async ({ settle, reason }) => {
      settle();
      const env: Record<string, string> = { ...bench.env, ...own() };
      if (/logFile|checkpointRoot/.test(readSettings())) delete env.TARDIS_CHECKPOINT_ROOT;
      await expectRuncAlone(create(), env);
      expectOneWarning(reason);
      expect(readdirSync(bench.enabled)).toEqual(['config.json']);
    },
  );

  it.each([
    ['is not there', () => '/nowhere/bin/runc'],
    ['is a directory', () => bench.dir],
    ['may not be executed', () => bench.configFile],
  ])(
    'should be done by the next runc on PATH where the one that they name %s, and say so',
    async (_, real) => {
      const { logFile, checkpointRoot, runDir } = bench;
      bench.configure({ realRunc: real(), logFile, checkpointRoot, runDir });
      const env = { ...bench.env, PATH: `${dirname(bench.runc.path)}:${bench.env.PATH}` };
      // Of a container of Tardis's and of all others.
      const lines = [create(), ['--root', bench.root, 'exec', 'other', 'true'], ['features']];
      for (const line of lines) expect(await bench.call(line, { env })).toMatchObject({ status: 0 });
      expect(bench.received()).toEqual(lines);
      const words = bench.logged().map(({ msg }) => msg);
      expect(words.filter((msg) => msg.includes(`there is no program ${real()} (realRunc)`))).toHaveLength(1);
      expect(existsSync(join(bench.enabled, 'tardis.json'))).toBe(true);
    },
  );

  it('should not call themselves for ever where the next runc on PATH is a script that calls Tardis', async () => {
    const directory = join(bench.dir, 'bin');
    mkdirSync(directory);
    writeFileSync(join(directory, 'runc'), `#!/bin/sh\nexec ${bench.launcher} "$@"\n`, { mode: 0o755 });
    bench.configure({ realRunc: '/nowhere/runc', logFile: bench.logFile, runDir: bench.runDir });
    const PATH = `${directory}:${dirname(bench.runc.path)}:${bench.env.PATH}`;
    await bench.call(['features'], { env: { ...bench.env, PATH } });
    expect(bench.received()).toEqual([['features']]);
  });

  it('should be Tardis’s in spite of a setting that it does not know, and say so', async () => {
    bench.configure({ ...JSON.parse(readSettings()), colour: 'blue' });
    await expectRuncAlone(create());
    const warned = bench.logged().filter(({ level }) => level === 'warn');
    expect(warned[0]?.msg).toMatch(/unknown setting "colour"; expected one of .*runDir/);
    expect(readdirSync(bench.enabled)).toContain('tardis.json');
  });

  function readSettings(): string {
    try {
      return readFileSync(bench.configFile, 'utf8');
    } catch {
      return '';
    }
  }
});

describe('a bundle that Tardis refuses', () => {
  const refused: { title: string; config: string[] | string; reason: RegExp }[] = [
    {
      title: 'broken JSON',
      config: '{"process": {"env": ["TARDIS_ENABLE=1"',
      reason: /cannot understand .*config\.json/,
    },
    {
      title: 'no OCI configuration',
      config: '{"env": ["TARDIS_ENABLE=1"]}',
      reason: /cannot understand .*config\.json: .*root/,
    },
    {
      title: 'a key that leaves its directory',
      config: ['TARDIS_ENABLE=1', 'TARDIS_CHECKPOINT_KEY=../x'],
      reason: /checkpoint key "\.\.\/x" is refused: expected a letter or digit/,
    },
    {
      title: 'a key that is too long',
      config: ['TARDIS_ENABLE=1', `AWS_BATCH_JOB_ID=${'x'.repeat(201)}`],
      reason: /checkpoint key "x+" is refused/,
    },
    {
      title: 'a host path outside the allowed roots',
      config: ['TARDIS_ENABLE=1', 'TARDIS_CHECKPOINT_HOST_PATH=/etc'],
      reason: /TARDIS_CHECKPOINT_HOST_PATH "\/etc" is refused: expected an absolute path inside/,
    },
    {
      title: 'a relative host path',
      config: ['TARDIS_ENABLE=1', 'TARDIS_CHECKPOINT_HOST_PATH=images'],
      reason: /TARDIS_CHECKPOINT_HOST_PATH "images" is refused/,
    },
  ];

  it.each(refused)('should be created by the real runc alone for $title', async ({ config, reason }) => {
    const bundle = bench.bundle('refused', config);
    await expectRuncAlone(create(bundle));
    expectOneWarning(reason);
    expect(readdirSync(bundle)).toEqual(['config.json']);
  });
});

describe('an enabled create where Tardis cannot write', () => {
  it('should be done by the real runc alone when a file is in the place of the run directory', async () => {
    writeFileSync(bench.runDir, '');
    await expectRuncAlone(create());
    expectOneWarning(/EEXIST|ENOTDIR/);
    expect(readdirSync(bench.enabled)).toEqual(['config.json']);
  });

  it('should be done by the real runc alone when the state cannot be written', async () => {
    mkdirSync(join(bench.enabled, 'tardis.json'));
    await expectRuncAlone(create());
    expect(callersLines().map(({ msg }) => msg)).toEqual([expect.stringMatching(/tardis\.json/)]);
    expect(bench.logged().map(({ msg }) => msg)).toContainEqual(
      expect.stringMatching(/tardis\.json'; the real runc does it alone/),
    );
    expect(readdirSync(bench.enabled)).toEqual(['config.json', 'tardis.json']);
    expect(existsSync(join(bench.runDir, 'containers', bench.root, 'web'))).toBe(false);
  });

  it('should be done all the same when a file is in the place of the checkpoint root', async () => {
    writeFileSync(bench.checkpointRoot, '');
    expect((await bench.call(create())).status).toBe(0);
    expect(bench.received()).toEqual([create()]);
    expect(bench.logged().filter(({ level }) => level === 'warn')).toEqual([
      expect.objectContaining({ msg: expect.stringMatching(/ENOTDIR/) }),
    ]);
    expect(existsSync(callersLog())).toBe(false);
  });

  it.each(['a directory', 'below a file', 'on a full disk'])(
    'should be done all the same when the log is %s',
    async (what) => {
      const below = join(bench.logFile, 'log');
      const logFile = { 'a directory': bench.dir, 'below a file': below, 'on a full disk': '/dev/full' }[
        what
      ] as string;
      writeFileSync(bench.logFile, '');
      bench.configure({ ...JSON.parse(readFileSync(bench.configFile, 'utf8')), logFile });
      await expectRuncAlone(create());
      await expectRuncAlone(create(bench.bundle('refused', ['TARDIS_ENABLE=1', 'TARDIS_CHECKPOINT_KEY=*'])));
      expect(callersLines().map(({ msg }) => msg)).toEqual([expect.stringMatching(/checkpoint key/)]);
    },
  );

  it("should be done by the real runc alone when the caller's log cannot be written", async () => {
    const bundle = bench.bundle('refused', ['TARDIS_ENABLE=1', 'TARDIS_CHECKPOINT_KEY=*']);
    await expectRuncAlone(['--root', bench.root, '--log', bench.dir, 'create', '--bundle', bundle, 'web']);
    expect(bench.logged().map(({ level }) => level)).toEqual(['warn']);
  });
});

describe('a lifecycle command where the state file is broken', () => {
  const damages: [string, (file: string) => void, RegExp][] = [
    ['empty', (file) => truncateSync(file), /not a state file of this Tardis/],
    ['cut short', (file) => truncateSync(file, 100), /not a state file of this Tardis/],
    ['of another machine', (file) => edit(file, { machineVersion: 99 }), /machineVersion/],
    ['of another schema', (file) => edit(file, { schemaVersion: 0 }), /schemaVersion/],
  ];
  const edit = (file: string, change: object) =>
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...change }));

  it.each(damages)('should be done by the real runc alone: %s', async (_, damage, reason) => {
    expect((await bench.call(create())).status).toBe(0);
    damage(join(bench.enabled, 'tardis.json'));
    for (const line of [lineFor('start'), lineFor('kill'), lineFor('pause'), lineFor('delete', '--force')]) {
      rmSync(bench.logFile, { force: true });
      rmSync(callersLog(), { force: true });
      await expectRuncAlone(line);
      expectOneWarning(reason);
    }
  });

  it('should be done by the real runc alone, with a word in the log, where there is no state file', async () => {
    expect((await bench.call(create())).status).toBe(0);
    rmSync(join(bench.enabled, 'tardis.json'));
    for (const command of ['start', 'kill', 'pause', 'delete']) await expectRuncAlone(lineFor(command));
    expect(readFileSync(bench.logFile, 'utf8')).toMatch(/tardis\.json: ENOENT/);
    expect(readdirSync(bench.enabled)).toEqual(['config.json']);
  });
});
