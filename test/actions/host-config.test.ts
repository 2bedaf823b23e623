import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultConfig, hostConfigSchema, loadHostConfig } from '../../src/actions/host-config.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { projectRoot } from '../support/paths.ts';

const scratch = useScratch();
const file = (): string => scratch.at('tardis.json');

/** Loads the settings of a file that holds this, in an environment with nothing else. */
function load(settings: unknown, env: NodeJS.ProcessEnv = {}) {
  writeFileSync(file(), typeof settings === 'string' ? settings : JSON.stringify(settings));
  return loadHostConfig({ ...env, TARDIS_CONFIG: file() });
}

const defaults = {
  checkpointRoot: '/var/lib/tardis/checkpoints',
  allowedRoots: ['/var/lib/tardis/checkpoints'],
  logFile: '/var/log/tardis/tardis.jsonl',
  runDir: '/run/tardis',
  lockTimeoutSeconds: 600,
  takeoverAfterSeconds: 60,
  restoreAttempts: 2,
  keep: 2,
  keepFinishedSeconds: 604_800,
  compressionLevel: 0,
  scratchDir: '/var/lib/tardis/scratch',
  freezeStallSeconds: 30,
  maxFreezeSeconds: 900,
  shareTimeoutSeconds: 5,
  onUnreachable: 'scratch',
  onStricterDefinition: 'refuse',
  verifyByRestore: false,
};

/** Every setting, with how it is written in the file and in the environment. */
const settings: [name: string, inFile: unknown, variable: string, inEnvironment: string][] = [
  ['realRunc', '/opt/runc', 'TARDIS_REAL_RUNC', '/opt/runc'],
  ['checkpointRoot', '/efs', 'TARDIS_CHECKPOINT_ROOT', '/efs'],
  ['allowedRoots', ['/efs', '/fsx'], 'TARDIS_ALLOWED_ROOTS', '/efs:/fsx'],
  ['logFile', '/var/log/t', 'TARDIS_LOG_FILE', '/var/log/t'],
  ['runDir', '/run/t', 'TARDIS_RUN_DIR', '/run/t'],
  ['lockTimeoutSeconds', 7, 'TARDIS_LOCK_TIMEOUT_SECONDS', '7'],
  ['hostId', 'one', 'TARDIS_HOST_ID', 'one'],
  ['takeoverAfterSeconds', 7, 'TARDIS_TAKEOVER_AFTER_SECONDS', '7'],
  ['restoreAttempts', 7, 'TARDIS_RESTORE_ATTEMPTS', '7'],
  ['keep', 7, 'TARDIS_KEEP', '7'],
  ['keepFinishedSeconds', 0, 'TARDIS_KEEP_FINISHED_SECONDS', '0'],
  ['manifestKeys', '/etc/tardis/keys.json', 'TARDIS_MANIFEST_KEYS', '/etc/tardis/keys.json'],
  ['maxDumps', 3, 'TARDIS_MAX_DUMPS', '3'],
  ['maxRestores', 5, 'TARDIS_MAX_RESTORES', '5'],
  ['compressionLevel', 3, 'TARDIS_COMPRESSION_LEVEL', '3'],
  ['scratchDir', '/mnt/nvme', 'TARDIS_SCRATCH_DIR', '/mnt/nvme'],
  ['freezeStallSeconds', 7, 'TARDIS_FREEZE_STALL_SECONDS', '7'],
  ['maxFreezeSeconds', 7, 'TARDIS_MAX_FREEZE_SECONDS', '7'],
  ['shareTimeoutSeconds', 7, 'TARDIS_SHARE_TIMEOUT_SECONDS', '7'],
  ['onUnreachable', 'fail', 'TARDIS_ON_UNREACHABLE', 'fail'],
  ['keyPattern', 'a-.*', 'TARDIS_KEY_PATTERN', 'a-.*'],
  ['onStricterDefinition', 'warn', 'TARDIS_ON_STRICTER_DEFINITION', 'warn'],
  ['verifyByRestore', true, 'TARDIS_VERIFY_BY_RESTORE', '1'],
];

describe('loadHostConfig', () => {
  it('should give the defaults where there is no file', () => {
    expect(loadHostConfig({ TARDIS_CONFIG: file() })).toEqual({ config: defaults, warnings: [] });
  });

  it('should know every setting that the README documents', () => {
    const names = [...settings.map(([name]) => name), 'faultInjection'];
    expect(names.sort()).toEqual(Object.keys(hostConfigSchema.shape).sort());
    const readme = readFileSync(join(projectRoot, 'README.md'), 'utf8');
    for (const [name, , variable] of settings) {
      expect(readme).toContain(`\`${name}\``);
      expect(readme).toContain(`\`${variable}\``);
    }
  });

  it.each(settings)('should take %s from the file, and from the environment before that', (...setting) => {
    const [name, inFile, variable, inEnvironment] = setting;
    expect(load({ [name]: inFile }).config).toMatchObject({ [name]: inFile });
    const fromEnvironment = loadHostConfig({
      TARDIS_CONFIG: scratch.at('missing'),
      [variable]: inEnvironment,
    });
    expect(fromEnvironment.config).toMatchObject({ [name]: inFile });
    const other = typeof inFile === 'number' ? 9 : name === 'allowedRoots' ? ['/other'] : '/other';
    expect(load({ [name]: other }, { [variable]: inEnvironment }).config).toMatchObject({ [name]: inFile });
    expect(load({ [name]: inFile }, { [variable]: '' }).config).toMatchObject({ [name]: inFile });
  });

  it('should allow the checkpoint root alone, wherever that is', () => {
    expect(load({ checkpointRoot: '/efs' }).config.allowedRoots).toEqual(['/efs']);
    expect(load({ checkpointRoot: '/efs', allowedRoots: ['/a'] }).config.allowedRoots).toEqual(['/a']);
  });

  it('should warn of settings that it does not know, and ignore them', () => {
    const { config, warnings } = load({ runDir: '/r', rundir: '/x', __proto: 1 });
    expect(config).toEqual({ ...defaults, runDir: '/r' });
    expect(warnings).toHaveLength(2);
    expect(warnings[0]).toContain(`${file()}: unknown setting "rundir"; expected one of realRunc, `);
    expect(warnings[1]).toContain('"__proto"');
  });

  it.each([
    ['realRunc', 'runc'],
    ['checkpointRoot', 5],
    ['checkpointRoot', null],
    ['allowedRoots', '/a'],
    ['allowedRoots', ['/a', 'b']],
    ['runDir', './run'],
    ['manifestKeys', 'keys.json'],
    ['scratchDir', 'scratch'],
    ['keep', 0],
    ['hostId', ''],
  ])('should refuse %s %j, naming the file and the setting', async (name, value) => {
    const problem = await problemOf(() => load({ [name]: value }));
    expect(problem.code).toBe('host-config');
    expect(problem.message).toMatch(new RegExp(`^${file()}: ${name}(\\.\\d+)?: .`));
  });

  it.each([
    ['lockTimeoutSeconds', 0],
    ['lockTimeoutSeconds', 1.5],
    ['lockTimeoutSeconds', '600'],
    ['lockTimeoutSeconds', 86_401],
    ['maxDumps', 0],
    ['maxRestores', 1.5],
    ['compressionLevel', 20],
    ...[-1, 315_360_001, '7d', null].map((value) => ['keepFinishedSeconds', value] as [string, unknown]),
    ['logFile', 3],
    ...['freezeStallSeconds', 'maxFreezeSeconds', 'shareTimeoutSeconds'].flatMap((name) =>
      [0, 0.5, -1, 1e9, 'soon', '5', null, [5]].map((value) => [name, value] as [string, unknown]),
    ),
    ['freezeStallSeconds', 3_601],
    ['maxFreezeSeconds', 86_401],
    ['shareTimeoutSeconds', 61],
    ...['', '1', 'yes', 1, null].map((value) => ['verifyByRestore', value] as [string, unknown]),
    ...['', 'Fail', 'scratch ', 'ignore', 0, true, null].map(
      (value) => ['onUnreachable', value] as [string, unknown],
    ),
  ])('takes the default and warns if %s is %j', (name, value) => {
    const { config, warnings } = load({ [name]: value, runDir: '/r' });
    expect(config).toEqual({ ...defaults, runDir: '/r' });
    expect(warnings).toEqual([
      expect.stringMatching(new RegExp(`^${file()}: ${name}: .*; the default is taken$`)),
    ]);
  });

  it.each([
    ['freezeStallSeconds', 1, 3_600],
    ['maxFreezeSeconds', 1, 86_400],
    ['shareTimeoutSeconds', 1, 60],
  ])('takes %s from %i to %i, and parts of a second', (name, least, most) => {
    for (const value of [least, 1.5, most])
      expect(load({ [name]: value }).config).toMatchObject({ [name]: value });
  });

  it('should name everything that is wrong at once', async () => {
    const { message } = await problemOf(() => load({ runDir: 1, logFile: 2 }));
    expect(message).toMatch(/logFile: .*; runDir: /);
  });

  it.each([
    ['relative', { TARDIS_RUN_DIR: 'run' }, /runDir: must be an absolute path/],
    ['not a number', { TARDIS_KEEP: 'many' }, /keep: /],
    ['one of a list that is empty', { TARDIS_ALLOWED_ROOTS: '/a:' }, /allowedRoots\.1: /],
  ])('should refuse a setting of the environment that is %s', async (_, env, message) => {
    const problem = await problemOf(() => loadHostConfig({ TARDIS_CONFIG: file(), ...env }));
    expect(problem).toMatchObject({ code: 'host-config', message: expect.stringMatching(message) });
  });

  it.each([
    ['is empty', '', /is not JSON/],
    ['is torn', '{"runDir": "/r', /is not JSON/],
    ['is a list', '[]', /something else than a JSON object/],
    ['is null', 'null', /something else than a JSON object/],
    ['is a word', '"/run"', /something else than a JSON object/],
  ])('should refuse a file that %s', async (_, text, message) => {
    const problem = await problemOf(() => load(text));
    expect(problem).toMatchObject({ code: 'host-config', message: expect.stringMatching(message) });
    expect(problem.message).toContain(file());
  });

  it('should refuse a file that cannot be read', async () => {
    mkdirSync(file());
    expect(await problemOf(() => loadHostConfig({ TARDIS_CONFIG: file() }))).toMatchObject({
      code: 'host-config',
      message: expect.stringMatching(`^cannot read ${file()}: EISDIR`),
    });
  });
});

describe('defaultConfig', () => {
  it('should look at the log and the run directory alone', () => {
    const env = Object.fromEntries(settings.map(([, , variable, value]) => [variable, value]));
    expect(defaultConfig(env)).toEqual({ ...defaults, logFile: '/var/log/t', runDir: '/run/t' });
  });

  it('should be the defaults in an empty environment', () => {
    expect(defaultConfig({})).toEqual(defaults);
  });

  // The settings are refused because of this very variable; the fallback then throws in its turn.
  it('should not fail over what it falls back from', () => {
    expect(defaultConfig({ TARDIS_RUN_DIR: 'run' })).toEqual(defaults);
  });
});
