import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
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

const said = { status: 3, stdout: 'out\n', stderr: 'err\n' };
const callersLog = () => join(bench.dir, 'log.json');
const lineFor = (command: string, ...words: string[]) => [
  ...['--root', bench.root, '--log', callersLog(), '--log-format', 'json', command],
  ...words,
  'web',
];
const create = (bundle = bench.enabled) =>
  lineFor('create', '--bundle', bundle, '--pid-file', `${bundle}/init.pid`);

/** Calls once, and expects the real runc to have done all of it. */
async function expectRuncAlone(line: string[], env = bench.env, launcher = bench.launcher): Promise<void> {
  const before = bench.received().length;
  bench.runc.answer(said);
  expect(await bench.call(line, { env, launcher })).toMatchObject(said);
  expect(bench.received().slice(before)).toEqual([line]);
}

describe('an enabled create where the installation is broken', () => {
  const damages: { title: string; damage: (home: string, node: string) => void }[] = [
    { title: 'the program is missing', damage: (home) => rmSync(join(home, 'dist'), { recursive: true }) },
    { title: 'the program is empty', damage: (home) => truncateSync(join(home, 'dist/tardis-runc.cjs')) },
    {
      title: 'the program is cut short',
      damage: (home) => truncateSync(join(home, 'dist/tardis-runc.cjs'), 200_000),
    },
    {
      title: 'the program is another one',
      damage: (home) => writeFileSync(join(home, 'dist/tardis-runc.cjs'), 'export const mine = 1;\n'),
    },
    { title: 'its loader is missing', damage: (home) => rmSync(join(home, 'dist/load.cjs')) },
    { title: 'its loader is empty', damage: (home) => truncateSync(join(home, 'dist/load.cjs')) },
    { title: 'Node is missing', damage: (_, node) => rmSync(node) },
    { title: 'Node is empty', damage: (_, node) => truncateSync(node) },
    { title: 'Node may not be executed', damage: (_, node) => chmodSync(node, 0o644) },
    {
      title: 'all packages are missing',
      damage: (home) => rmSync(join(home, 'node_modules'), { recursive: true }),
    },
  ];

  const check = async ({ damage }: { damage: (home: string, node: string) => void }) => {
    const home = join(bench.dir, 'installation');
    for (const part of ['bin', 'dist'])
      cpSync(join(installation, part), join(home, part), { recursive: true });
    const packages = readdirSync(join(installation, 'node_modules'));
    const name = packages.find((one) => one.startsWith('node-linux-')) as string;
    const node = join('node_modules', name, 'bin/node');
    mkdirSync(join(home, node, '..'), { recursive: true });
    cpSync(join(installation, node), join(home, node), { dereference: true });
    const launcher = join(home, 'bin/tardis-runc');

    // Sound, it would have been Tardis's.
    expect((await bench.call(create(), { launcher })).status).toBe(0);
    expect(readdirSync(bench.enabled)).toContain('tardis.json');
    rmSync(join(bench.enabled, 'tardis.json'));

    damage(home, join(home, node));
    await expectRuncAlone(create(), bench.env, launcher);
    expect(readdirSync(bench.enabled)).toEqual(['config.json']);
    // A job that is not carried on for this reason has lost its past: somebody should know.
    const warned = bench.logged().filter(({ level }) => level === 'warn');
    expect(warned).toEqual([
      expect.objectContaining({
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
        msg: expect.stringMatching(/the real runc does it alone\. Run scripts\/prepare\.sh there$/),
      }),
    ]);
  };
  const title = 'should be done by the real runc alone when $title';
  it.each(damages)(title, check);
  it('should leave nothing of the launcher to the real runc when the program is cut short', async () => {
    const home = join(bench.dir, 'installation');
    for (const part of ['bin', 'dist'])
      cpSync(join(installation, part), join(home, part), { recursive: true });
    symlinkSync(join(installation, 'node_modules'), join(home, 'node_modules'));
    truncateSync(join(home, 'dist/tardis-runc.cjs'), 200_000);
    const env = { ...bench.env, PWD: bench.enabled, NODE_OPTIONS: '--no-warnings' };
    await bench.call(create(), { env, launcher: join(home, 'bin/tardis-runc') });
    expect(bench.runc.calls().map((call) => call.env)).toEqual([env]);
  });
});

describe("V8's compiled form of the program", () => {
  const forms = ['others', 'checkpoint'].map((name) => `dist/tardis-runc.cjs.${name}.compiled`);

  it('should be taken, as it was kept when the program was built', async () => {
    const taken =
      'const { compile } = require(process.argv[1]); for (const command of ["create", "checkpoint"]) console.log(compile(process.argv[2], command).script.cachedDataRejected)';
    const programs = ['load', 'tardis-runc'].map((name) => join(installation, `dist/${name}.cjs`));
    const { stdout } = spawnSync(process.execPath, ['-e', taken, '--', ...programs], { encoding: 'utf8' });
    expect(stdout).toBe('false\nfalse\n');
  });

  it.each<{ title: string; damage: (path: string) => void }>([
    { title: 'is missing', damage: (path) => rmSync(path) },
    { title: 'is empty', damage: (path) => truncateSync(path) },
    { title: 'is cut short', damage: (path) => truncateSync(path, 100_000) },
    { title: 'is of another program', damage: keepThatOfAnother },
    { title: "is of another V8's", damage: (path) => writeFileSync(path, otherVersion(readFileSync(path))) },
  ])('should not be needed where it $title', async ({ damage }) => {
    const home = join(bench.dir, 'installation');
    for (const part of ['bin', 'dist'])
      cpSync(join(installation, part), join(home, part), { recursive: true });
    symlinkSync(join(installation, 'node_modules'), join(home, 'node_modules'));
    for (const form of forms) damage(join(home, form));
    expect((await bench.call(create(), { launcher: join(home, 'bin/tardis-runc') })).status).toBe(0);
    expect(readdirSync(bench.enabled)).toContain('tardis.json');
    expect(bench.logged().filter(({ level }) => level === 'warn')).toEqual([]);
  });
});

/** V8 tells two programs from each other by their length alone. */
function keepThatOfAnother(path: string): void {
  const dist = join(path, '..');
  const program = join(dist, 'tardis-runc.cjs');
  const { length } = readFileSync(program);
  const text = 'exports.main = () => process.exit(9);';
  const mark = `\n//# build ${'0'.repeat(64)}\n`;
  const other = join(dist, 'other.cjs');
  writeFileSync(other, text + ' '.repeat(length - text.length - mark.length) + mark);
  const keeping =
    'const [load, command, other] = process.argv.slice(1); require(load).load(other, { command, keep: true }).main([])';
  const command = path.split('.').at(-2) as string;
  const argv = ['-e', keeping, '--', join(dist, 'load.cjs'), command, other];
  expect(spawnSync(process.execPath, argv).status).toBe(9);
  renameSync(`${other}.${command}.compiled`, path);
}

/** V8's words begin with its magic number and the hash of its version. */
const otherVersion = (kept: Buffer): Buffer => {
  const changed = Buffer.from(kept);
  changed.writeUInt32LE(1, 4);
  return changed;
};
