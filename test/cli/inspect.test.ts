import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AnyStateMachine, AnyStateNode } from 'xstate';
import packageJson from '../../package.json' with { type: 'json' };
import { enterIndex } from '../../src/actions/container-index.ts';
import { appendEntry } from '../../src/actions/ledger.ts';
import { type Manifest, writeManifest } from '../../src/actions/manifest.ts';
import { type HistoryEntry, type StateRecord, writeState } from '../../src/actions/state-file.ts';
import { inspect } from '../../src/cli/commands/inspect.ts';
import { checkpointMachine } from '../../src/machines/checkpoint.ts';
import { containerMachine } from '../../src/machines/container.ts';
import { restoreMachine } from '../../src/machines/restore.ts';
import { projectRoot } from '../support/paths.ts';

let top: string;
let runDir: string;
let imageRoot: string;
let env: NodeJS.ProcessEnv;

beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'inspect-'));
  runDir = join(top, 'run');
  imageRoot = join(top, 'images');
  env = { TARDIS_CONFIG: join(top, 'settings.json'), TARDIS_RUN_DIR: runDir };
});
afterEach(() => rmSync(top, { recursive: true, force: true }));

const usualRoot = '/run/containerd/runc/default';

/** What of a state file a test chooses. */
interface Choice {
  readonly id?: string;
  readonly root?: string;
  /** Such as `alive.running`. */
  readonly state?: string;
  /** A child machine's state and context. */
  readonly child?: { readonly machine: string; readonly state: string; readonly context?: object };
  readonly context?: object;
  readonly history?: readonly HistoryEntry[];
}

/** A state value of a path: `alive.running` → `{ alive: 'running' }`. */
function stateValue(path: string): unknown {
  const [first = '', ...rest] = path.split('.');
  return rest.length === 0 ? first : { [first]: stateValue(rest.join('.')) };
}

/** Makes a container as a wrapper leaves it: bundle, state file, index entry. Returns the bundle. */
function makeContainer(choice: Choice = {}): string {
  const { id = 'job-1', root = usualRoot, state = 'alive.running', child, context, history = [] } = choice;
  const bundle = join(top, 'bundles', root.replaceAll('/', '_'), id);
  mkdirSync(bundle, { recursive: true });
  const secret = { process: { env: ['TARDIS_ENABLE=1', 'PASSWORD=hunter2'] } };
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(secret));
  const container = { id, root, bundle, key: 'nightly', imageRoot };
  const call = {
    argv: ['exec', '--env', 'PASSWORD=hunter2', id],
    globals: [],
    switches: [],
    restoreFlags: [],
  };
  const children = child && {
    [`0.container.alive.${child.machine}`]: {
      src: child.machine,
      snapshot: {
        status: 'active',
        value: stateValue(child.state),
        context: { container, call, ...child.context },
      },
    },
  };
  writeState({
    schemaVersion: 1,
    machineVersion: 1,
    ...container,
    snapshot: {
      status: 'active',
      value: stateValue(state),
      context: { container, call, startsAtOnce: false, wasPaused: false, answer: { status: 0 }, ...context },
      children: children ?? {},
      historyValue: {},
    } as StateRecord['snapshot'],
    history: [...history],
  });
  enterIndex(runDir, container);
  return bundle;
}

/** Makes an image of two files, 5 MiB and 12 bytes, and `current`. */
function makeImage(generation: number): { generation: number; directory: string } {
  const directory = join(imageRoot, 'nightly', String(generation));
  mkdirSync(directory, { recursive: true });
  const manifest: Manifest = {
    schemaVersion: 2,
    ...{ key: 'nightly', generation, epoch: 0, createdAt: '2030-01-02T03:04:05.678Z' },
    container: {
      ...{ id: 'job-1', fingerprint: 'f' },
      shape: {
        ...{ args: ['sh'], cwd: '/', user: null, capabilities: null },
        ...{ terminal: false, namespaces: [], mountDestinations: [] },
      },
    },
    dump: { leftRunning: true, flags: [], stoppedTasks: [] },
    rootfs: { kind: 'overlay', bytes: 0, entries: 0, removed: 0, sockets: [] },
    host: { arch: 'x64', kernel: '6', cpuFlags: [], criu: '4.1', runc: '1.3', kernelFeatures: [] },
    files: {
      'checkpoint/pages-1.img': { bytes: 5 * 1024 * 1024, sha256: '0'.repeat(64) },
      'dump.log': { bytes: 12, sha256: '0'.repeat(64) },
    },
  };
  writeManifest(directory, manifest);
  const current = join(imageRoot, 'nightly', 'current');
  rmSync(current, { force: true });
  symlinkSync(String(generation), current);
  return { generation, directory };
}

const text = (target: string, options: { root?: string; history?: number } = {}) =>
  inspect(target, { format: 'text', history: 20, ...options }, { cwd: top, env });
const json = (target: string, options: { root?: string; history?: number } = {}) =>
  JSON.parse(inspect(target, { format: 'json', history: 20, ...options }, { cwd: top, env }));

/** The whole program, from its source. */
function tardis(...args: string[]) {
  const program = join(projectRoot, 'src/cli/tardis.ts');
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    ...{ cwd: top, encoding: 'utf8' as const },
    env: { ...process.env, NODE_OPTIONS: '', ...env },
  });
  return { status, stdout, stderr };
}

/** Everything that can be seen of a directory tree, times included but for those of reading. */
function everythingIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const path = join(directory, name);
      const stat = lstatSync(path, { bigint: true });
      const content = stat.isSymbolicLink()
        ? readlinkSync(path)
        : stat.isFile()
          ? readFileSync(path, 'utf8')
          : '';
      return [name, stat.ino, stat.mode, stat.mtimeNs, stat.ctimeNs, content].join(' ');
    });
}

const leavesOf = (machine: AnyStateMachine): string[] => {
  const leaves = (node: AnyStateNode): AnyStateNode[] =>
    Object.values(node.states).flatMap((child) =>
      Object.keys(child.states).length > 0 ? leaves(child) : child.type === 'history' ? [] : [child],
    );
  return leaves(machine.root).map((node) => node.path.join('.'));
};
const unfinished = (machine: AnyStateMachine): string[] =>
  leavesOf(machine).filter((path) => machine.getStateNodeById(`${machine.id}.${path}`).type !== 'final');

/** What `tardis inspect` says of each state; a state that is new in the machine needs a line here. */
const sayings: Record<string, string> = {
  new: 'new (no command has been carried out)',
  'alive.creating.lookingForImage': 'creating, in the step "looking for image"',
  'alive.creating.fromScratch': 'creating, in the step "from scratch"',
  'alive.created': 'created (waits for start)',
  'alive.starting': 'starting',
  'alive.running': 'running',
  'alive.pausing': 'pausing',
  'alive.paused': 'paused',
  'alive.resuming': 'resuming',
  'alive.checkpointing': 'checkpointing',
  'alive.checkpointed': 'checkpointed (the job was ended and its image carries it on)',
  'alive.restoring': 'restoring',
  'alive.restored': 'restored (held as it was dumped, waits for start)',
  'alive.releasing': 'releasing',
  'alive.rolledBack':
    'rolled back (the restore failed and was undone: the container is created from scratch)',
  'alive.adopting': "adopting (runs the caller's own restore)",
  'alive.stopped': 'stopped',
  'alive.failed': 'failed',
  deleting: 'deleting',
  recovering: 'recovering',
  deleted: 'deleted',
};

describe('tardis inspect: the state', () => {
  it.each(leavesOf(containerMachine))('should say in words that a container is %s', (state) => {
    const lines = text(makeContainer({ state })).split('\n');
    expect(lines).toContain(`State      ${sayings[state]}`);
    const works = !containerMachine.getStateNodeById(`container.${state}`).tags.includes('resting');
    expect(json('job-1')).toMatchObject({ state, step: null, inTheMiddle: works });
    expect(lines.includes('           in the middle of it: a wrapper is at work, or it died here')).toBe(
      works,
    );
  });

  it.each([
    ...unfinished(checkpointMachine).map((step) => ({ machine: 'checkpoint', step })),
    ...unfinished(restoreMachine).map((step) => ({ machine: 'restore', step })),
  ])('should name the step $step of a $machine that is under way', ({ machine, step }) => {
    const state = machine === 'checkpoint' ? 'alive.checkpointing' : 'alive.restoring';
    makeContainer({ state, child: { machine, state: step } });
    expect(json('job-1')).toMatchObject({ state, step, inTheMiddle: true });
    expect(text('job-1')).toMatch(
      /State {6}\w+, in the step "[a-z, ]+"\n {11}in the middle of it: a wrapper/,
    );
  });

  it('should tell of the image that an interrupted checkpoint has begun, and of the one before', () => {
    const image = makeImage(3);
    const begun = { generation: 4, directory: join(imageRoot, 'nightly/4') };
    makeContainer({
      state: 'alive.checkpointing',
      child: { machine: 'checkpoint', state: 'dumping', context: { image: begun } },
      context: { image },
    });
    expect(json('job-1')).toMatchObject({
      unfinishedImage: begun,
      image: { generation: 3, isCurrent: true },
    });
    expect(text('job-1')).toContain(`unfinished image: generation 4, ${begun.directory}.partial\n`);
    expect(text('job-1')).toContain(
      'Next       whatever command comes next, the step is undone or finished first',
    );
  });

  it('should name the steps of a rollback', () => {
    makeContainer({
      state: 'alive.restoring',
      child: { machine: 'restore', state: 'rollingBack.resettingRootfs' },
    });
    expect(text('job-1')).toContain('restoring, in the step "rolling back, resetting rootfs"\n');
  });

  it('should say what may happen next, from the machine', () => {
    makeContainer();
    expect(text('job-1')).toContain(
      '\nNext       pause, checkpoint, kill, delete; or runc reports it paused or stopped\n',
    );
    expect(json('job-1').next).toEqual([
      { event: 'PAUSE', to: ['alive.pausing'] },
      { event: 'CHECKPOINT', to: ['alive.checkpointing'] },
      { event: 'OBSERVED', to: ['alive.paused', 'alive.stopped'] },
      { event: 'KILL', to: [] },
      { event: 'DELETE', to: ['deleting'] },
    ]);
    makeContainer({ state: 'alive.failed' });
    expect(text('job-1')).toContain('\nNext       kill, delete; or runc reports it running or paused\n');
    makeContainer({ state: 'deleted' });
    expect(text('job-1')).toContain('\nNext       nothing\n');
  });

  it('should show the identity, and why the latest failure came about', () => {
    const failure = { message: 'criu failed:\n no space', code: 'dump', status: 255 };
    const bundle = makeContainer({ context: { failure } });
    utimesSync(join(bundle, 'tardis.json'), new Date(), new Date(Date.now() - 5 * 60_000));
    const shown = text('job-1');
    expect(shown).toContain(
      `Container  job-1\nKey        nightly\nBundle     ${bundle}\nrunc root  ${usualRoot}\n`,
    );
    expect(shown).toContain('Failure    criu failed:; no space (dump)\n');
    expect(shown).toMatch(/\nWritten {4}\d{4}-\S+Z \(5 min ago\)\n/);
    expect(json('job-1')).toMatchObject({ id: 'job-1', key: 'nightly', bundle, root: usualRoot, failure });
  });

  it.each([
    ['nothing', undefined, 'not decided: the first checkpoint decides'],
    ['an epoch', { epoch: 2 }, 'epoch 2'],
    ['an epoch that is over', { epoch: 1 }, 'epoch 1, superseded by epoch 2: its checkpoints are refused'],
    [
      'a refusal',
      { refused: 'container other carries the job on' },
      'none: container other carries the job on',
    ],
  ])('should tell the life of a container with %s', (_, life, line) => {
    const claimant = { host: 'a', root: '/r', id: 'other', wrapper: { pid: 1, startTime: 1 } };
    for (const after of [0, 1]) appendEntry(join(imageRoot, 'nightly'), after, { kind: 'life', claimant });
    const bundle = makeContainer({ context: life ? { life } : {} });
    expect(text(bundle)).toMatch(new RegExp(`^Life +${line}$`, 'm'));
  });

  it('should have the documented keys in JSON, in every state', () => {
    const keys = [
      'id',
      'key',
      'bundle',
      'root',
      'imageRoot',
      'stateFile',
      'writtenAt',
      'state',
      'step',
      'words',
    ];
    keys.push(
      'inTheMiddle',
      'unfinishedImage',
      'failure',
      'life',
      'image',
      'next',
      'history',
      'historyLeftOut',
    );
    const help = tardis('inspect', '--help').stdout;
    for (const key of keys) expect(help).toMatch(new RegExp(`\\b${key}\\b`));
    for (const state of leavesOf(containerMachine)) {
      expect(Object.keys(json(makeContainer({ state })))).toEqual(keys);
    }
  });

  it('should never show the environment, a command line, or what would steer a terminal', () => {
    makeContainer({ context: { failure: { message: '\u001b[2Jhello', code: 'x' } } });
    expect(text('job-1')).toContain('?[2Jhello');
    for (const shown of [text('job-1'), JSON.stringify(json('job-1'))]) {
      expect(shown).not.toContain('hunter2');
      expect(shown).not.toContain('\u001b');
    }
  });
});

describe('tardis inspect: the image', () => {
  it('should say which it is, how large, and that it is current', () => {
    const image = makeImage(7);
    makeContainer({ context: { image } });
    expect(text('job-1')).toContain(
      `Image      generation 7, current\n           ${image.directory}\n` +
        '           5.0 MiB (5242892 bytes) in 2 files, created 2030-01-02T03:04:05.678Z\n',
    );
    expect(json('job-1').image).toEqual({
      ...image,
      exists: true,
      isCurrent: true,
      currentGeneration: 7,
      createdAt: '2030-01-02T03:04:05.678Z',
      bytes: 5_242_892,
      files: 2,
      problem: null,
    });
  });

  it('should say that a newer one is current', () => {
    const image = makeImage(7);
    makeImage(8);
    makeContainer({ context: { image } });
    expect(text('job-1')).toContain('Image      generation 7, not current: current is 8\n');
  });

  it('should say that it is missing', () => {
    makeContainer({ context: { image: { generation: 2, directory: join(imageRoot, 'nightly/2') } } });
    expect(text('job-1')).toContain('Image      generation 2, missing (there is no current one)\n');
    expect(json('job-1').image).toMatchObject({
      exists: false,
      isCurrent: false,
      bytes: null,
      problem: null,
    });
  });

  it('should say why its manifest cannot be read', () => {
    const image = makeImage(7);
    writeFileSync(join(image.directory, 'tardis.json'), '{"torn":');
    makeContainer({ context: { image } });
    expect(text('job-1')).toContain(`${image.directory}/tardis.json is not a manifest of this Tardis`);
    expect(json('job-1').image).toMatchObject({ exists: true, isCurrent: true, bytes: null, files: null });
  });

  it('should say that there is none', () => {
    makeContainer();
    expect(text('job-1')).toContain('\nImage      none\n');
    expect(json('job-1').image).toBeNull();
  });
});

describe('tardis inspect: the history', () => {
  const entry = (index: number): HistoryEntry => ({
    at: new Date(Date.UTC(2030, 0, 1, 0, index)).toISOString(),
    event: index % 2 ? 'PAUSE' : 'CHECKPOINT',
    from: index % 2 ? 'alive.running' : 'alive.checkpointing/preparing',
    to: index % 2 ? 'alive.pausing' : 'alive.checkpointing/savingRootfs',
    ms: index * 1000.5,
  });
  const many = Array.from({ length: 200 }, (_, index) => entry(index));
  const rowsOf = (shown: string) => shown.split('\n').filter((line) => line.includes(' → '));

  it('should show the latest 20 of 200 entries and say how many it left out', () => {
    makeContainer({ history: many });
    const shown = text('job-1');
    expect(rowsOf(shown)).toHaveLength(20);
    expect(rowsOf(shown).at(-1)).toContain('2030-01-01T03:19:00.000Z');
    expect(shown).toContain(
      'History    the latest 20 of 200 entries; 180 left out (--history 200 shows them)\n',
    );
    expect(json('job-1')).toMatchObject({ historyLeftOut: 180, history: many.slice(-20) });
  });

  it('should show all 200, aligned, in a page that fits a wide terminal', () => {
    makeContainer({ history: many });
    const shown = text('job-1', { history: 200 });
    const rows = rowsOf(shown);
    expect(shown).toContain('History    200 entries, the latest last\n');
    expect(rows).toHaveLength(200);
    expect(new Set(rows.map((row) => row.length)).size).toBe(1);
    expect(new Set(rows.map((row) => row.indexOf('→'))).size).toBe(1);
    expect(rows[0]?.length).toBeLessThan(120);
    expect(rows[1]).toBe(
      '  2030-01-01T00:01:00.000Z  PAUSE       running                 → pausing                       1000.5',
    );
  });

  it('should show none with 0, and say so of one that is empty', () => {
    makeContainer({ history: many });
    expect(rowsOf(text('job-1', { history: 0 }))).toEqual([]);
    expect(text('job-1', { history: 0 })).toContain('200 left out');
    expect(json('job-1', { history: 0 })).toMatchObject({ history: [], historyLeftOut: 200 });
    makeContainer({ history: [] });
    expect(text('job-1')).toMatch(/\nHistory {4}empty\n$/);
  });
});

describe('tardis inspect: which container', () => {
  it('should find one by its id, its bundle, and its state file', () => {
    const bundle = makeContainer();
    const stateFile = join(bundle, 'tardis.json');
    for (const target of ['job-1', bundle, `${bundle}/`, stateFile]) {
      expect(json(target)).toMatchObject({ id: 'job-1', stateFile });
    }
  });

  it('should find one by a relative path, and by a plain word that is no id', () => {
    const bundle = makeContainer();
    const from = (cwd: string, target: string) =>
      JSON.parse(inspect(target, { format: 'json', history: 0 }, { cwd, env })).id;
    expect(from(bundle, '.')).toBe('job-1');
    expect(from(bundle, './tardis.json')).toBe('job-1');
    expect(from(bundle, 'tardis.json')).toBe('job-1');
  });

  it('should take a word for an id first', () => {
    makeContainer();
    mkdirSync(join(top, 'job-1'));
    expect(json('job-1').id).toBe('job-1');
  });

  it('should not need the settings of the host for a path', () => {
    const bundle = makeContainer();
    writeFileSync(join(top, 'settings.json'), '{');
    expect(json(bundle).id).toBe('job-1');
    expect(() => text('job-1')).toThrow(/settings\.json is not JSON/);
  });

  it('should name the runc roots where several have that id, and take --root', () => {
    const other = '/run/docker/runtime-runc/moby';
    makeContainer();
    makeContainer({ root: other });
    expect(() => text('job-1')).toThrow(
      `2 containers are called "job-1", with the runc roots ${usualRoot}, ${other}; name one with --root, or the bundle`,
    );
    expect(json('job-1', { root: other }).root).toBe(other);
    expect(json('job-1', { root: usualRoot }).root).toBe(usualRoot);
    expect(() => text('job-1', { root: '/run/runc' })).toThrow(
      `found no container "job-1": no entry for the runc root /run/runc in ${runDir}/containers`,
    );
  });

  it('should say where it looked for one that is unknown, and the way out', () => {
    expect(() => text('job-2')).toThrow(
      `found no container "job-2": no entry under ${runDir}/containers, and no file or directory ${top}/job-2; ` +
        "expected a container's id, its bundle, or a state file; see tardis inspect --help",
    );
    expect(() => text('./job-2')).toThrow(`found no file or directory ${top}/job-2; expected`);
    mkdirSync(join(top, 'job-2'));
    expect(() => text('job-2')).toThrow(`found no tardis.json in ${top}/job-2`);
  });

  it('should say that the bundle of an indexed container is gone', () => {
    const bundle = makeContainer();
    rmSync(bundle, { recursive: true });
    expect(() => text('job-1')).toThrow(
      `the index knows container "job-1", but there is no ${bundle}/tardis.json`,
    );
  });
});

describe('tardis inspect: state files that cannot be read', () => {
  const spoil = (change: (record: Record<string, unknown>) => unknown): string => {
    const file = join(makeContainer(), 'tardis.json');
    writeFileSync(file, JSON.stringify(change(JSON.parse(readFileSync(file, 'utf8')))));
    return file;
  };

  it.each([
    ['nothing', ''],
    ['half a file', '{"schemaVersion": 1, "id"'],
    ['no object', '[]'],
    ['another object', '{"hello": "world"}'],
  ])('should refuse %s with the reason', (_, content) => {
    const file = join(makeContainer(), 'tardis.json');
    writeFileSync(file, content);
    expect(() => text('job-1')).toThrow(`${file} is not a state file of this Tardis (schema 1, machine 1): `);
  });

  it('should say that another Tardis wrote it', () => {
    for (const versions of [{ schemaVersion: 2 }, { machineVersion: 7 }]) {
      const { schemaVersion, machineVersion } = { schemaVersion: 1, machineVersion: 1, ...versions };
      const file = spoil((record) => ({ ...record, ...versions }));
      expect(() => text('job-1')).toThrow(
        `${file} was written by another Tardis (schema ${schemaVersion}, machine ${machineVersion}); ` +
          'this one reads schema 1, machine 1: inspect it with the one that wrote it',
      );
    }
  });

  it('should refuse a state that the machine does not have', () => {
    for (const value of [
      'flying',
      { alive: 'flying' },
      'alive',
      {},
      'toString',
      { alive: 'lastKnown' },
      7,
      null,
    ]) {
      const file = spoil((record) => ({ ...record, snapshot: { value, context: {} } }));
      expect(() => text('job-1'), JSON.stringify(value)).toThrow(`${file} cannot be understood: `);
    }
  });

  it('should refuse a context that is not the machine’s', () => {
    spoil((record) => ({ ...record, snapshot: { value: { alive: 'running' }, context: { image: 'mine' } } }));
    expect(() => text('job-1')).toThrow(/cannot be understood: .*image/);
  });

  it('should tell the manifest of an image from a state file', () => {
    expect(() => text(makeImage(1).directory)).toThrow('is the manifest of a checkpoint image; expected');
  });
});

describe('tardis', () => {
  it('should print an inspection on stdout and change nothing on the disk', () => {
    const history = [{ at: 'now', event: 'START', from: 'alive.created', to: 'alive.starting', ms: 1 }];
    const image = makeImage(7);
    const child = { machine: 'checkpoint', state: 'dumping' };
    makeContainer({ id: 'resting', context: { image }, history });
    makeContainer({ id: 'interrupted', state: 'alive.checkpointing', child, context: { image } });
    const before = everythingIn(top);
    for (const id of ['resting', 'interrupted']) {
      for (const format of ['text', 'json']) {
        const result = tardis('inspect', id, '--format', format);
        expect(result).toMatchObject({ status: 0, stderr: '' });
        expect(result.stdout).toContain(id);
      }
    }
    expect(everythingIn(top)).toEqual(before);
    expect(existsSync(join(runDir, 'locks'))).toBe(false);
  });

  it('should answer an error with status 1, the reason on stderr, and nothing on stdout', () => {
    const before = everythingIn(top);
    for (const args of [
      ['inspect', 'job-2'],
      ['inspect', 'job-2', '--format', 'json'],
      ['inspect', 'job-2', '--format', 'xml'],
      ['inspect', 'job-2', '--history', '-1'],
      ['inspect', 'job-2', '--history', 'all'],
      ['inspect'],
      ['inspect', 'job-2', 'job-3'],
      ['insect'],
    ]) {
      const result = tardis(...args);
      expect(result, args.join(' ')).toMatchObject({ status: 1, stdout: '' });
      expect(result.stderr, args.join(' ')).toMatch(/^(tardis|error): .+\n/);
    }
    expect(everythingIn(top)).toEqual(before);
  });

  it('should print its version and its help', () => {
    expect(tardis('--version')).toEqual({ status: 0, stdout: `${packageJson.version}\n`, stderr: '' });
    for (const args of [['help'], ['--help']]) {
      expect(tardis(...args)).toMatchObject({
        status: 0,
        stdout: expect.stringContaining('inspect'),
        stderr: '',
      });
    }
    expect(tardis('help', 'inspect').stdout).toContain('--history');
  });
});

describe('bin/tardis', () => {
  const run = (path: string, options = {}) => {
    const { status, stdout, stderr } = spawnSync(path, ['one', 'two words'], {
      encoding: 'utf8',
      ...options,
    });
    return { status, stdout, stderr };
  };
  /** An installation whose program prints its arguments. */
  function install(parts: { node: boolean; program: boolean }): string {
    const home = join(top, 'tardis home');
    const nodeDir = join(home, 'node_modules/node-linux-any/bin');
    mkdirSync(join(home, 'bin'), { recursive: true });
    cpSync(join(projectRoot, 'bin/tardis'), join(home, 'bin/tardis'));
    if (parts.node) {
      mkdirSync(nodeDir, { recursive: true });
      symlinkSync(process.execPath, join(nodeDir, 'node'));
    }
    if (parts.program) {
      mkdirSync(join(home, 'dist'));
      writeFileSync(join(home, 'dist/tardis.cjs'), 'console.log(process.argv.slice(2).join("|"));');
    }
    return home;
  }

  it('should run the program with the installation’s own Node, through symlinks too', () => {
    const home = install({ node: true, program: true });
    mkdirSync(join(top, 'bin'));
    symlinkSync('../tardis home/bin/tardis', join(top, 'bin/first'));
    symlinkSync('first', join(top, 'bin/second'));
    for (const path of [join(home, 'bin/tardis'), join(top, 'bin/first'), join(top, 'bin/second')]) {
      const hostile = { ...process.env, NODE_OPTIONS: '--require /nowhere.js' };
      expect(run(path, { env: hostile })).toEqual({ status: 0, stdout: 'one|two words\n', stderr: '' });
    }
    expect(run('./tardis', { cwd: join(home, 'bin') }).stdout).toBe('one|two words\n');
  });

  it.each([
    { node: false, program: true, missing: /no Node in .*node_modules/, remedy: 'npm ci' },
    { node: true, program: false, missing: /no .*dist\/tardis\.cjs/, remedy: 'npm run build' },
  ])('should say what an incomplete installation lacks ($remedy)', ({ missing, remedy, ...parts }) => {
    const home = install(parts);
    const result = run(join(home, 'bin/tardis'));
    expect(result).toMatchObject({ status: 1, stdout: '' });
    expect(result.stderr).toMatch(/^tardis: this installation is incomplete: .*\n$/);
    expect(result.stderr).toMatch(missing);
    expect(result.stderr).toContain(`run ${remedy} in ${home}`);
  });
});
