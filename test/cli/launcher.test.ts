import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import fc from 'fast-check';
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

const traces = () => [bench.runDir, bench.logFile, join(bench.enabled, 'tardis.json')].filter(existsSync);

describe('a call that is none of Tardis', () => {
  const lines: { title: string; line: () => string[] }[] = [
    { title: '--version', line: () => ['--version'] },
    { title: 'features', line: () => ['features'] },
    { title: 'list', line: () => ['--root', bench.root, 'list', '--format', 'json'] },
    { title: 'spec', line: () => ['spec', '--bundle', bench.enabled] },
    { title: 'state', line: () => ['--root', bench.root, 'state', 'web'] },
    { title: 'events', line: () => ['--root', bench.root, 'events', '--stats', 'web'] },
    { title: 'ps', line: () => ['--root', bench.root, 'ps', '--format', 'json', 'web'] },
    {
      title: 'exec',
      line: () => ['--root', bench.root, 'exec', '-t', 'web', 'sh', '-c', 'runc create "$@"', '--', ''],
    },
    { title: 'update', line: () => ['--root', bench.root, 'update', '--resources=-', 'web'] },
    { title: 'nothing at all', line: () => [] },
    { title: 'an unknown command', line: () => ['defrost', '--bundle', bench.enabled, 'web'] },
    {
      title: 'an unknown global flag',
      line: () => ['--verbose', 'create', '--bundle', bench.enabled, 'web'],
    },
    {
      title: 'an unknown flag of create',
      line: () => ['create', '--gently', '--bundle', bench.enabled, 'web'],
    },
    { title: 'a create with no id', line: () => ['create', '--bundle', bench.enabled] },
    {
      title: 'a create with a newline in it',
      line: () => ['create', '--bundle', bench.enabled, 'two\nlines'],
    },
    {
      title: 'a create of a bundle that is not there',
      line: () => ['create', '--bundle', '/nowhere', 'web'],
    },
    { title: 'help for create', line: () => ['create', '--help', '--bundle', bench.enabled, 'web'] },
    ...['start', 'kill', 'pause', 'resume', 'delete', 'checkpoint'].map((word) => ({
      title: `${word} of a container that is not enabled`,
      line: () => ['--root', bench.root, '--log', '/dev/null', '--log-format', 'json', word, 'web'],
    })),
  ];

  it.each(lines)('should reach the real runc as it came: $title', async ({ line }) => {
    bench.runc.answer({ status: 3, stdout: 'out\n', stderr: 'err\n' });
    expect(await bench.call(line())).toMatchObject({ status: 3, stdout: 'out\n', stderr: 'err\n' });
    expect(bench.received()).toEqual([line()]);
    expect(traces()).toEqual([]);
  });

  it.each(['TARDIS_ENABLE=0', 'TARDIS_ENABLE=false', 'TARDIS_ENABLE=', 'NOT_TARDIS_ENABLE=1'])(
    'should leave no trace for a bundle with %s',
    async (setting) => {
      const bundle = bench.bundle('ordinary', [setting]);
      const line = [
        '--root',
        bench.root,
        'create',
        '--bundle',
        bundle,
        '--pid-file',
        `${bundle}/init.pid`,
        'web',
      ];
      expect(await bench.call(line)).toMatchObject({ status: 0 });
      expect(bench.received()).toEqual([line]);
      expect(readdirSync(bundle)).toEqual(['config.json']);
      expect(traces()).toEqual([]);
    },
  );

  it.each([0, 1, 2, 42, 137, 255])('should end with the status of the real runc: %d', async (status) => {
    bench.runc.answer({ status });
    expect((await bench.call(['state', 'web'])).status).toBe(status);
    expect((await bench.call(['create', '--no-such-flag', 'web'])).status).toBe(status);
  });

  it('should hand on words that are empty, quoted, spread over lines, or no UTF-8', async () => {
    const words = [
      'exec',
      '',
      ' two  words ',
      `"it's"`,
      '$HOME `id` *',
      'a\nb\n',
      '\\n',
      '--',
      '-',
      '-x',
      'é',
      '\t',
    ].map((word) => Buffer.from(word));
    words.push(Buffer.from([0xff, 0xfe, 0x20, 0xc3]), Buffer.from([0x81, 0x82, 0x88]));
    await bench.callWithBytes(words);
    await bench.callWithBytes([Buffer.from('create'), ...words]);
    expect(bench.bytesReceived()).toEqual([words, [Buffer.from('create'), ...words]]);
  });

  /** Words that lead deep into the launcher and the parser, and any others. `checkpoint` and `restore` are Tardis's. */
  const word = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.constantFrom(
        'create',
        'run',
        'start',
        'kill',
        'pause',
        'resume',
        'delete',
        'state',
        'exec',
      ),
    },
    {
      weight: 4,
      arbitrary: fc.constantFrom(
        '--bundle',
        '-b',
        '--root',
        '--log',
        '-root=',
        '--pid-file',
        '--',
        '-',
        '--x',
        '-d',
        '--force',
      ),
    },
    { weight: 3, arbitrary: fc.constantFrom('BUNDLE', 'ROOT', '--bundle=BUNDLE', 'web', '9', '.', '') },
    {
      weight: 1,
      arbitrary: fc.uint8Array({ min: 1, max: 255, maxLength: 12 }).map((bytes) => Buffer.from(bytes)),
    },
    { weight: 1, arbitrary: fc.string().map((text) => text.replaceAll('\0', '')) },
  );

  /** Half of the lines begin as one of a known container does, or of an enabled bundle in the working directory. */
  const known = fc.constantFrom(
    ...['create', 'run', 'start', 'kill', 'pause', 'resume', 'delete'].flatMap((command) => [
      ['--root', 'ROOT', command],
      ['--root', 'ROOT', command, 'web'],
      ['--root', 'ROOT', '--log', '/dev/null', command, '--bundle=BUNDLE', '--', 'web'],
    ]),
  );
  const line = fc
    .tuple(fc.option(known, { nil: [] }), fc.array(word, { maxLength: 6 }))
    .map(([a, b]) => [...a, ...b]);

  it('should hand on any line whatever', { timeout: 180_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(line, async (drawn) => {
        using wild = launcherBench(installation);
        await wild.call(['--root', wild.root, 'create', 'web']);
        const words = drawn.map((one) =>
          Buffer.isBuffer(one)
            ? one
            : Buffer.from(one.replace('BUNDLE', wild.enabled).replace('ROOT', wild.root)),
        );
        wild.runc.answer({ status: 5 });
        expect((await wild.callWithBytes(words)).status).toBe(5);
        expect(wild.bytesReceived().slice(1)).toEqual([words]);
      }),
      { numRuns: 40 },
    );
  });
});

/** The programs that a call runs, and how many processes it begins, as strace(1) sees them. */
function programsOf(line: string[]): { programs: string[]; begun: number } {
  const seen = join(bench.dir, 'seen');
  const words = [
    '--follow-forks',
    '--trace=execve,clone,clone3,fork,vfork',
    '--output',
    seen,
    bench.launcher,
    ...line,
  ];
  const { status } = spawnSync('strace', words, {
    cwd: bench.dir,
    env: { ...bench.env, TARDIS_REAL_RUNC: '/bin/true' },
  });
  expect(status).toBe(0);
  const calls = readFileSync(seen, 'utf8');
  const programs = [...calls.matchAll(/execve\("([^"]+)"(?!.* = -1 )/g)].map(([, path = '']) =>
    basename(path),
  );
  return { programs, begun: calls.match(/\b(clone3?|v?fork)\(/g)?.length ?? 0 };
}

describe('a container that is none of Tardis', () => {
  it.each(['state', 'exec', 'start', 'kill', 'delete'])('should cost %s no process', (command) => {
    const found = programsOf(['--root', bench.root, command, 'web']);
    expect(found).toEqual({ programs: ['tardis-runc', 'true'], begun: 0 });
  });

  it('should cost create one grep', () => {
    const plain = bench.bundle('plain', ['PATH=/bin']);
    const found = programsOf(['--root', bench.root, 'create', '--bundle', plain, 'web']);
    expect(found).toEqual({ programs: ['tardis-runc', 'grep', 'true'], begun: 1 });
  });
});

describe('the launcher', () => {
  it('should know itself behind a symlink', async () => {
    const link = join(bench.dir, 'link');
    const hop = join(bench.dir, 'hop');
    spawnSync('ln', ['-s', bench.launcher, hop]);
    spawnSync('ln', ['-s', 'hop', link]);
    const line = ['--root', bench.root, 'create', '--bundle', bench.enabled, 'web'];
    expect((await bench.call(line, { launcher: link })).status).toBe(0);
    expect(bench.received()).toEqual([line]);
    expect(existsSync(join(bench.enabled, 'tardis.json'))).toBe(true);
  });

  const configured: [string, (real: string) => string][] = [
    ['pretty-printed settings', (real) => JSON.stringify({ allowedRoots: ['/x'], realRunc: real }, null, 4)],
    ['settings in one line', (real) => JSON.stringify({ runDir: '/x', realRunc: real, logFile: '/y' })],
    ['settings that nobody would write', (real) => `{"realRunc"\n\t:\n\n"${real}"}`],
  ];

  it.each(configured)('should find the real runc in %s', async (_, text) => {
    bench.configure(text(bench.runc.path));
    expect((await bench.call(['state', 'web'])).status).toBe(0);
    expect(bench.received()).toEqual([['state', 'web']]);
  });

  it('should take the real runc that the environment names before that of the settings', async () => {
    bench.configure({ realRunc: '/bin/false' });
    await bench.call(['state', 'web'], { env: { ...bench.env, TARDIS_REAL_RUNC: bench.runc.path } });
    expect(bench.received()).toEqual([['state', 'web']]);
  });

  it('should find the real runc on PATH, and never itself', async () => {
    rmSync(bench.configFile);
    const first = join(bench.dir, 'first');
    const second = join(bench.dir, 'second');
    for (const place of [first, second]) spawnSync('mkdir', [place]);
    spawnSync('ln', ['-s', bench.launcher, join(first, 'runc')]);
    spawnSync('ln', ['-s', join(first, 'runc'), join(second, 'runc')]);
    const path = [first, second, dirname(bench.runc.path), bench.env.PATH].join(':');
    const env = {
      ...bench.env,
      PATH: path,
      TARDIS_RUN_DIR: bench.runDir,
      TARDIS_LOG_FILE: bench.logFile,
      TARDIS_CHECKPOINT_ROOT: bench.checkpointRoot,
    };
    const create = ['--root', bench.root, 'create', '--bundle', bench.enabled, 'web'];
    for (const line of [['state', 'web'], create]) {
      expect((await bench.call(line, { env, launcher: join(first, 'runc') })).status).toBe(0);
    }
    expect(bench.received()).toEqual([['state', 'web'], create]);
    expect(bench.runc.calls()[1]?.env).toEqual({ ...env, PWD: bench.enabled });
  });
});
