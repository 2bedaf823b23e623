import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  containerId,
  flagSet,
  flagValue,
  globalSet,
  globalValue,
  parseRuncCommand,
  renderRuncCommand,
} from '../../src/cli/runc-command.ts';
import { flagNamed, globalFlags, type SubcommandName, subcommands } from '../../src/cli/runc-flags.ts';
import { which } from '../support/paths.ts';

const names = Object.keys(subcommands) as SubcommandName[];
const globalWords = [
  '--root',
  '/run/containerd/runc/default',
  '--log',
  '/b/log.json',
  '--log-format',
  'json',
];

describe('parseRuncCommand, on the lines that the shim sends', () => {
  it.each<{
    line: string;
    name: SubcommandName;
    id: string;
    values?: object;
    on?: string[];
    rest?: string[];
  }>([
    {
      line: 'create --bundle /b --pid-file /b/init.pid job',
      name: 'create',
      id: 'job',
      values: { bundle: '/b', 'pid-file': '/b/init.pid' },
    },
    {
      line: 'create --bundle /b --pid-file /b/init.pid --console-socket /tmp/pty.sock job',
      name: 'create',
      id: 'job',
      values: { bundle: '/b', 'pid-file': '/b/init.pid', 'console-socket': '/tmp/pty.sock' },
    },
    { line: 'start job', name: 'start', id: 'job' },
    { line: 'pause job', name: 'pause', id: 'job' },
    { line: 'resume job', name: 'resume', id: 'job' },
    { line: 'state job', name: 'state', id: 'job' },
    { line: 'kill job 15', name: 'kill', id: 'job', rest: ['15'] },
    { line: 'kill --all job 9', name: 'kill', id: 'job', on: ['all'], rest: ['9'] },
    { line: 'delete job', name: 'delete', id: 'job' },
    { line: 'delete --force job', name: 'delete', id: 'job', on: ['force'] },
    {
      line: 'checkpoint --image-path /p --work-path /w job',
      name: 'checkpoint',
      id: 'job',
      values: { 'image-path': '/p', 'work-path': '/w' },
    },
    {
      line: 'checkpoint --image-path /p --work-path /w --leave-running job',
      name: 'checkpoint',
      id: 'job',
      values: { 'image-path': '/p', 'work-path': '/w' },
      on: ['leave-running'],
    },
    {
      line: 'restore --image-path /p --work-path /w --detach --pid-file /f -no-subreaper --bundle /b job',
      name: 'restore',
      id: 'job',
      values: { 'image-path': '/p', 'work-path': '/w', 'pid-file': '/f', bundle: '/b' },
      on: ['detach', 'no-subreaper'],
    },
    { line: 'update --resources=- job', name: 'update', id: 'job', values: { resources: '-' } },
    { line: 'update --resources - job', name: 'update', id: 'job', values: { resources: '-' } },
    { line: 'events job', name: 'events', id: 'job' },
    { line: 'ps --format json job', name: 'ps', id: 'job', values: { format: 'json' } },
    {
      line: 'exec --process /p.json --pid-file /f --detach job',
      name: 'exec',
      id: 'job',
      values: { process: '/p.json', 'pid-file': '/f' },
      on: ['detach'],
    },
  ])('should understand: $line', ({ line, name, id, values = {}, on = [], rest = [] }) => {
    const command = parseRuncCommand([...globalWords, ...line.split(' ')]);
    expect(command).toMatchObject({ understood: true, name, positionals: [id, ...rest] });
    expect(command).not.toHaveProperty('reason');
    expect(containerId(command)).toBe(id);
    expect(globalValue(command, 'root')).toBe('/run/containerd/runc/default');
    expect(globalValue(command, 'log')).toBe('/b/log.json');
    expect(globalValue(command, 'log-format')).toBe('json');
    expect(command.flags.map((use) => use.name).sort()).toEqual([...Object.keys(values), ...on].sort());
    for (const [flag, value] of Object.entries(values)) expect(flagValue(command, flag)).toBe(value);
    for (const flag of on) expect(flagSet(command, flag)).toBe(true);
  });

  it('should understand features, which comes without global flags', () => {
    expect(parseRuncCommand(['features'])).toMatchObject({ understood: true, name: 'features', globals: [] });
  });

  it.each([['--version'], ['-v'], ['--help'], ['-h', 'list'], ['--version', 'create', '--bundle']])(
    'should see no subcommand where runc only prints: %s %s %s',
    (...argv) => {
      const command = parseRuncCommand(argv);
      expect(command).toMatchObject({ understood: true, name: undefined });
      expect(renderRuncCommand(command)).toEqual(argv);
    },
  );

  it('should see no subcommand in an empty line', () => {
    expect(parseRuncCommand([])).toMatchObject({ understood: true, name: undefined, positionals: [] });
  });
});

describe('parseRuncCommand, on the forms of a flag', () => {
  it.each([
    [['-b', '/b']],
    [['--b', '/b']],
    [['-b=/b']],
    [['--b=/b']],
    [['-bundle', '/b']],
    [['--bundle', '/b']],
    [['-bundle=/b']],
    [['--bundle=/b']],
  ])('should read a value in the form %j', (words) => {
    const command = parseRuncCommand(['create', ...words, 'job']);
    expect(command.flags).toEqual([{ name: 'bundle', value: '/b', words }]);
    expect(containerId(command)).toBe('job');
  });

  it.each([
    ['--bundle=', ''],
    ['--bundle=a=b', 'a=b'],
    ['--bundle=a\nb', 'a\nb'],
    ['--bundle=--', '--'],
  ])('should take everything after the first = of %j as the value', (word, value) => {
    expect(flagValue(parseRuncCommand(['create', word, 'job']), 'bundle')).toBe(value);
  });

  it.each(['-1', '--', '-', '', '--leave-running'])(
    'should take %j as a value when a flag wants one',
    (value) => {
      const command = parseRuncCommand(['update', '--memory-swap', value, 'job']);
      expect(flagValue(command, 'memory-swap')).toBe(value);
      expect(containerId(command)).toBe('job');
    },
  );

  it.each(['1', 't', 'T', 'true', 'TRUE', 'True'])('should read --force=%s as on', (word) => {
    expect(flagSet(parseRuncCommand(['delete', `--force=${word}`, 'job']), 'force')).toBe(true);
  });

  it.each(['0', 'f', 'F', 'false', 'FALSE', 'False'])('should read --force=%s as off', (word) => {
    expect(flagSet(parseRuncCommand(['delete', `--force=${word}`, 'job']), 'force')).toBe(false);
  });

  it.each(['', 'yes', 'on', 'tRUE', ' true', '2'])('should not understand --force=%s', (word) => {
    const command = parseRuncCommand(['delete', `--force=${word}`, 'job']);
    expect(command.understood).toBe(false);
    expect(command.reason).toContain(JSON.stringify(`--force=${word}`));
    expect(command.reason).toContain('1, t, T');
  });

  it('should not take the next word as the value of a boolean flag', () => {
    const command = parseRuncCommand(['delete', '--force', 'true']);
    expect(flagSet(command, 'force')).toBe(true);
    expect(containerId(command)).toBe('true');
  });

  it('should let the last use of a flag win', () => {
    const create = parseRuncCommand(['create', '--bundle', '/a', '--bundle=/b', 'job']);
    expect(flagValue(create, 'bundle')).toBe('/b');
    expect(create.flags).toHaveLength(2);
    expect(flagSet(parseRuncCommand(['delete', '-f', '-f=false', 'job']), 'force')).toBe(false);
    const list = parseRuncCommand(['--debug', '--debug=0', '--root=/a', '--root=/b', 'list']);
    expect(globalSet(list, 'debug')).toBe(false);
    expect(globalValue(list, 'root')).toBe('/b');
  });

  it('should keep the --rootless of runc apart from the --rootless of runc spec', () => {
    const command = parseRuncCommand(['--rootless', 'auto', 'spec', '--rootless']);
    expect(globalValue(command, 'rootless')).toBe('auto');
    expect(globalSet(command, 'rootless')).toBe(false);
    expect(flagSet(command, 'rootless')).toBe(true);
    expect(flagValue(command, 'rootless')).toBeUndefined();
  });

  it('should say of a flag that was not given that it is off and has no value', () => {
    const command = parseRuncCommand(['checkpoint', 'job']);
    expect(flagSet(command, 'leave-running')).toBe(false);
    expect(flagValue(command, 'image-path')).toBeUndefined();
    expect(globalSet(command, 'debug')).toBe(false);
    expect(globalValue(command, 'root')).toBeUndefined();
  });
});

describe('parseRuncCommand, on positionals', () => {
  it('should end the flags at --', () => {
    const command = parseRuncCommand(['--', 'delete', '--', '--force']);
    expect(command).toMatchObject({ understood: true, name: 'delete', flags: [], positionals: ['--force'] });
    expect(command.pieces.map((piece) => piece.role)).toEqual([
      'terminator',
      'command',
      'terminator',
      'positional',
    ]);
  });

  it('should take a lone dash as a positional', () => {
    expect(parseRuncCommand(['kill', '-', '9'])).toMatchObject({ understood: true, positionals: ['-', '9'] });
  });

  it.each([
    [['delete', 'job', '--force'], 'force'],
    [['delete', 'job', '-f'], 'force'],
    [['checkpoint', 'job', '--image-path', '/p', '--leave-running'], 'leave-running'],
    [['checkpoint', '--image-path', '/p', 'job', '--leave-running'], 'leave-running'],
    [['kill', 'job', '9', '--all'], 'all'],
  ])('should read the flags after the id in %j', (argv, on) => {
    const command = parseRuncCommand(argv);
    expect(command.understood).toBe(true);
    expect(containerId(command)).toBe('job');
    expect(flagSet(command, on)).toBe(true);
  });

  it.each([
    [
      ['exec', '--tty', 'job', 'ls', '--env', '-la', '--', '--zzz'],
      ['job', 'ls', '--env', '-la', '--', '--zzz'],
    ],
    [
      ['exec', 'job', '--', 'ls'],
      ['job', '--', 'ls'],
    ],
    [
      ['ps', 'job', '-ef'],
      ['job', '-ef'],
    ],
  ])('should leave the words after the id alone in %j', (argv, positionals) => {
    expect(parseRuncCommand(argv)).toMatchObject({ understood: true, positionals });
  });

  it.each([
    [['checkpoint', '--leave-running', 'job', '--image-path', '/p']],
    [['create', '--no-pivot', 'job', '--']],
    [['create', '--no-pivot', '--', 'job', '--bundle=/b']],
    [['create', '--bundle', '--no-pivot', 'job', '--pid-file', '/f']],
    [['kill', 'job', '--all', '9']],
    [['delete', 'job', '--']],
  ])('should not understand %j, which runc does not read as written', (argv) => {
    const command = parseRuncCommand(argv);
    expect(command).toMatchObject({ understood: false, name: undefined });
    expect(command.reason).toContain('not read it as written');
    expect(renderRuncCommand(command)).toEqual(argv);
  });

  it.each([
    [['list']],
    [['features', 'job']],
    [['spec', 'job']],
    [['help', 'create']],
    [['h', 'create']],
    [['delete']],
    [['delete', '']],
    [['delete', '--help', 'job']],
    [['delete', '--frobnicate', 'job']],
    [['--version', 'delete', 'job']],
  ])('should name no container in %j', (argv) => {
    expect(containerId(parseRuncCommand(argv))).toBeUndefined();
  });
});

describe('parseRuncCommand, on what it does not understand', () => {
  it.each([
    [['--frobnicate', 'create', 'job'], '"--frobnicate"', 'a flag that runc has'],
    [['create', '--frobnicate', 'job'], '"--frobnicate"', 'a flag that runc create has'],
    [['create', 'job', '--frobnicate'], '"--frobnicate"', 'a flag that runc create has'],
    [['create', '--leave-running', 'job'], '"--leave-running"', 'a flag that runc create has'],
    [['create', '--root', '/r', 'job'], '"--root"', 'a flag that runc create has'],
    [['create', '--config', '/c.json', 'job'], '"--config"', 'a flag that runc create has'],
    [['--bundle', '/b', 'create', 'job'], '"--bundle"', 'a flag that runc has'],
    [['delete', '-fv', 'job'], '"-fv"', 'a flag that runc delete has'],
    [['create', '---bundle', 'job'], '"---bundle"', 'a flag that runc create has'],
    [['create', '-=x', 'job'], '"-=x"', 'a flag that runc create has'],
    [['create', '--=x', 'job'], '"--=x"', 'a flag that runc create has'],
    [['--constructor', 'list'], '"--constructor"', 'a flag that runc has'],
    [['frobnicate', 'job'], '"frobnicate"', "one of runc's commands"],
    [['constructor'], '"constructor"', "one of runc's commands"],
    [['__proto__'], '"__proto__"', "one of runc's commands"],
    [[''], '""', "one of runc's commands"],
    [['-'], '"-"', "one of runc's commands"],
    [['--log'], '"--log"', 'its value after it'],
    [['create', 'job', '--bundle'], '"--bundle"', 'its value after it'],
    [['create', '--bundle', '/a', '-b', '/b', 'job'], '"-b"', 'only one form of it'],
    [['delete', '-f', '--force', 'job'], '"--force"', 'only one form of it'],
  ])('should say of %j what it found and what it expected', (argv, found, expected) => {
    const command = parseRuncCommand(argv);
    expect(command).toMatchObject({ understood: false, name: undefined });
    expect(command.reason).toContain(`found ${found}`);
    expect(command.reason).toContain(expected);
    expect(containerId(command)).toBeUndefined();
    expect(renderRuncCommand(command)).toEqual(argv);
  });

  it('should keep what it had read, so that a warning finds the log', () => {
    const command = parseRuncCommand(['--log', '/l', 'create', '--bundle', '/b', '--frobnicate', 'x', 'job']);
    expect(globalValue(command, 'log')).toBe('/l');
    expect(flagValue(command, 'bundle')).toBe('/b');
    expect(command.positionals).toEqual([]);
    expect(command.pieces.at(-1)).toEqual({ role: 'unread', words: ['--frobnicate', 'x', 'job'] });
  });

  it('should give its reason on one line, whatever the word holds', () => {
    expect(parseRuncCommand(['create', '--a\nb', 'job']).reason).toMatch(/^[^\n]+$/);
  });
});

describe('the tables of flags', () => {
  // What runc 1.1.5 does not have and 1.3.6 does, and what neither shows: read in their sources.
  it.each<[SubcommandName, string, boolean]>([
    ['create', 'pidfd-socket', true],
    ['run', 'pidfd-socket', true],
    ['exec', 'pidfd-socket', true],
    ['checkpoint', 'link-remap', false],
    ['checkpoint', 'tcp-skip-in-flight', false],
    ['update', 'cpu-burst', true],
    ['update', 'cpu-idle', true],
    ['update', 'kernel-memory', true],
    ['update', 'kernel-memory-tcp', true],
    ['kill', 'all', false],
  ])('should know that %s has --%s, takes a value: %s', (name, flag, takesValue) => {
    expect(flagNamed(subcommands[name].flags, flag)?.takesValue).toBe(takesValue);
  });

  it.each(['', ...names])('should spell no two flags alike: runc %s', (name) => {
    const spellings = tableFor(name).flatMap((flag) => flag.names);
    expect(spellings).toEqual([...new Set(spellings)]);
  });
});

const realRunc = which('runc');
if (realRunc === undefined) {
  const reason = 'no runc on PATH to compare with (apt-get install runc)';
  if (process.env.CI === 'true') throw new Error(reason);
  console.warn(`skipped: ${reason}`);
}

describe.skipIf(realRunc === undefined)('the installed runc', () => {
  let emptyDir: string;
  beforeAll(() => {
    emptyDir = mkdtempSync(join(tmpdir(), 'tardis-runc-command-'));
  });
  afterAll(() => rmSync(emptyDir, { recursive: true, force: true }));

  function runc(...argv: string[]) {
    const ran = spawnSync(realRunc ?? '', argv, { cwd: emptyDir, encoding: 'utf8', input: '' });
    return { status: ran.status, output: ran.stdout + ran.stderr };
  }

  it.each(['', ...names.filter((name) => name !== 'help')])(
    'should have no flag in its help that the tables lack or give another arity: runc %s',
    (name) => {
      const { status, output } = runc(...(name === '' ? [] : [name]), '--help');
      expect(status).toBe(0);
      // urfave/cli hides the flags of a command that has none of its own but --help.
      if (name === '' || name === 'create') expect(flagsInHelp(output)).not.toEqual([]);
      for (const shown of flagsInHelp(output)) {
        const known = flagNamed(tableFor(name), shown.names[0]);
        expect(known, `--${shown.names[0]}`).toEqual(shown);
      }
    },
  );

  it('should have no command in its help that the tables lack', () => {
    const [, listed = ''] = /\nCOMMANDS:\n(.*?)\n\n/s.exec(runc('--help').output) ?? [];
    const commands = [...listed.matchAll(/^ {3}(\w+)/gm)].map(([, name]) => name);
    expect(commands).toContain('checkpoint');
    expect(names).toEqual(expect.arrayContaining(commands));
  });

  // In an empty directory `create` fails at a --bundle that does not exist, or for want of a config.json; its
  // message tells which words it took for what.
  it('should read every understood line of create as the parser does', () => {
    const words = ['job', '-b', '--bundle=c', '--no-pivot', '--', '-'];
    const lines = sequences(words, 3);
    const understood = lines.filter((line) => parseRuncCommand(['create', ...line]).understood);
    expect(understood.length).toBeGreaterThan(lines.length / 2);
    for (const line of understood) {
      const command = parseRuncCommand(['create', ...line]);
      const bundle = flagValue(command, 'bundle') ?? '';
      const expected = command.positionals.length === 1 ? `bundle "${bundle}"` : 'refused';
      expect(`${line.join(' ')}: ${outcomeOfCreate(line)}`).toBe(`${line.join(' ')}: ${expected}`);
    }
  });

  function outcomeOfCreate(line: readonly string[]): string {
    const { output } = runc('--root', join(emptyDir, 'root'), 'create', ...line);
    if (output.includes('Incorrect Usage')) return 'refused';
    if (output.includes('config.json not found')) return 'bundle ""';
    const [, bundle] = /chdir (.*): no such file/.exec(output) ?? [];
    return bundle === undefined ? output : `bundle "${bundle}"`;
  }
});

function tableFor(name: string) {
  return name === '' ? globalFlags : subcommands[name as SubcommandName].flags;
}

/** The flags of a help text; `   --bundle value, -b value  path to ...` is one with a value and an alias. */
function flagsInHelp(text: string) {
  return [...text.matchAll(/^ {3}--([\w-]+)( value)?(?:, -(\w)(?: value)?)? {2}/gm)].map(
    ([, long = '', value, short]) => ({
      names: short === undefined ? ([long] as const) : ([long, short] as const),
      takesValue: value !== undefined,
    }),
  );
}

/** Every sequence of up to `length` of the words, the empty one included. */
function sequences(words: readonly string[], length: number): string[][] {
  if (length === 0) return [[]];
  const shorter = sequences(words, length - 1);
  const longest = shorter.filter((line) => line.length === length - 1);
  return [...shorter, ...longest.flatMap((line) => words.map((word) => [...line, word]))];
}
