import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Host } from '../../src/actions/host.ts';
import { messageOf, RuncFailure, runcForCaller, runcForTardis } from '../../src/actions/runc.ts';
import { hostWith } from '../support/action-host.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { type FakeRunc, fakeRunc } from '../support/fake-runc.ts';
import { waitFor } from '../support/wait.ts';

const scratch = useScratch();
let runc: FakeRunc;
beforeEach(() => {
  runc = fakeRunc();
});
afterEach(() => runc.remove());

const callersEnv = { PATH: process.env.PATH, HOME: '/root', EMPTY: '', WORDS: 'a b\nc' };
const host = (given: Partial<Host> = {}): Host =>
  hostWith({ realRunc: runc.path, env: callersEnv, ...given });
/** A host whose runc is this script. */
function hostOf(script: string, given: Partial<Host> = {}): Host {
  writeFileSync(scratch.at('runc'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return host({ realRunc: scratch.at('runc'), ...given });
}
const failureOf = async (given: Host): Promise<RuncFailure> =>
  (await problemOf(() => runcForCaller(given, ['start', 'job']))) as RuncFailure;

const argv = ['--root', '/r', 'create', '--bundle', '/b c', '', '--', '$HOME "x"', "it's"];
const limit = spawnSync('sh', ['-c', 'ulimit -Sn'], { encoding: 'utf8' }).stdout.trim();

const isRunning = (pid: string): boolean => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};

describe.each([
  ['with a limit of open files', '77'],
  ['without one', undefined],
])('runc for the caller, %s', (_, openFilesLimit) => {
  it("should be given the caller's words and environment, and nothing else", async () => {
    await runcForCaller(host({ openFilesLimit }), argv);
    const [call] = runc.calls();
    expect(call?.args).toEqual(argv);
    // The shell of the launching line, and the one that the fake is written in, add these.
    const { PWD: _pwd, OLDPWD: _oldpwd, SHLVL: _shlvl, _: _underscore, ...env } = call?.env ?? {};
    expect(env).toEqual(callersEnv);
    expect(call?.cwd).toBe(process.cwd());
  });

  it.each([
    [1, 1],
    [2, 2],
    [127, 127],
    [128, 1],
    [137, 1],
    [255, 1],
  ])('should fail with a status that the shim takes: after %i with %i', async (ended, status) => {
    const failure = await failureOf(hostOf(`exit ${ended}`, { openFilesLimit }));
    expect(failure).toBeInstanceOf(RuncFailure);
    expect(failure).toMatchObject({ code: 'runc', status, message: `runc ended with ${ended}` });
  });

  it('should fail with 1 where it was killed', async () => {
    const failure = await failureOf(hostOf('kill -TERM $$', { openFilesLimit }));
    expect(failure).toMatchObject({ code: 'runc', status: 1, message: 'runc ended with SIGTERM' });
  });

  it('should fail where it is missing, with a status that the shim takes', async () => {
    const failure = await failureOf(host({ realRunc: scratch.at('gone'), openFilesLimit }));
    expect(failure).toBeInstanceOf(RuncFailure);
    expect([1, 127]).toContain(failure.status);
  });

  it('should answer with what it printed, where Tardis asks', async () => {
    const given = hostOf('echo one; echo "$1 $2"; cat', { openFilesLimit });
    expect(await runcForTardis(given, ['state', 'job'])).toBe('one\nstate job');
  });

  it('should fail with the last words, where Tardis asks', async () => {
    const words = 'time="t" level=error msg="container \\"job\\" does not exist"';
    const problem = await problemOf(() =>
      runcForTardis(hostOf(`echo first >&2; echo '${words}' >&2; exit 1`, { openFilesLimit }), ['state']),
    );
    expect(problem).toMatchObject({ code: 'runc', message: 'container "job" does not exist' });
  });

  it.each([
    ['exit 3', 'runc ended with 3'],
    ['kill -KILL $$', 'runc ended with SIGKILL'],
  ])('should fail with its end where it said nothing: %s', async (script, message) => {
    const given = hostOf(script, { openFilesLimit });
    expect(await problemOf(() => runcForTardis(given, []))).toMatchObject({ code: 'runc', message });
  });
});

describe('runc', () => {
  it("should have the caller's soft limit of open files, which is not Node's", async () => {
    const given = hostOf('ulimit -Sn; ulimit -Hn', { openFilesLimit: '77' });
    const [soft, hard] = (await runcForTardis(given, [])).split('\n');
    expect(soft).toBe('77');
    expect(hard).not.toBe('77');
    expect(await runcForTardis(hostOf('ulimit -Sn'), [])).toBe(limit);
  });

  it("should have the wrapper's own input and output for the caller, and none for Tardis", async () => {
    const streams = 'all=$(for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done); echo "$all" >"$1"';
    await runcForCaller(hostOf(streams), [scratch.at('caller')]);
    await runcForTardis(hostOf(streams), [scratch.at('inherited')], { stdio: 'inherit' });
    await runcForTardis(hostOf(streams), [scratch.at('captured')]);
    const [caller, inherited, captured] = ['caller', 'inherited', 'captured'].map((name) =>
      readFileSync(scratch.at(name), 'utf8').trim().split('\n'),
    );
    expect(inherited).toEqual(caller);
    expect(caller).toHaveLength(3);
    expect(captured?.[0]).toBe('/dev/null');
    expect(caller).not.toContain(captured?.[1]);
    expect(caller).not.toContain(captured?.[2]);
  });

  it('should have variables of its own on top, where Tardis asks', async () => {
    await runcForTardis(host(), ['restore'], { env: { HOME: '/b/tardis-criu' } });
    expect(runc.calls()[0]?.env).toMatchObject({ ...callersEnv, HOME: '/b/tardis-criu' });
  });

  it('should be ended with all that it has begun where it gives no answer, and Tardis asks', async () => {
    const given = hostOf(`sleep 77 & echo $! >${scratch.at('child')}; wait`);
    const impatient = { ...given, config: { ...given.config, freezeStallSeconds: 0.5 } };
    const problem = await problemOf(() => runcForTardis(impatient, ['state', 'job']));
    expect(problem).toMatchObject({
      code: 'runc',
      message: 'runc gave no answer for 1 s (twice freezeStallSeconds) and was killed: state job',
    });
    const child = readFileSync(scratch.at('child'), 'utf8').trim();
    await waitFor('its child to end', () => !isRunning(child));
  });

  it('should be named where it is missing, and Tardis asks', async () => {
    const problem = await problemOf(() => runcForTardis(host({ realRunc: '/gone/runc' }), []));
    expect(problem).toMatchObject({ code: 'runc', message: expect.stringMatching(/\/gone\/runc.*ENOENT/) });
  });
});

describe('messageOf', () => {
  it.each([
    ['nothing', '', ''],
    ['blank lines', '\n\n', ''],
    ['plain words', 'criu failed', 'criu failed'],
    ['several lines', 'one\ntwo\n', 'two'],
    ['a text log', 'time="2026-01-02T03:04:05Z" level=error msg="no \\"space\\"\\nleft"', 'no "space"\nleft'],
    ['a JSON log', '{"level":"error","msg":"no \\"space\\"","time":"2026-01-02T03:04:05Z"}', 'no "space"'],
    [
      'a JSON log about a text log',
      '{"level":"error","msg":"level=error msg=\\"in\\""}',
      'level=error msg="in"',
    ],
    ['a log and runc’s own repetition', 'level=error msg="one"\none', 'one'],
    ['a JSON line without a message', 'before\n{"level":"error"}', 'before'],
    ['a torn JSON line', '{"level":"error","msg":"no', '{"level":"error","msg":"no'],
    ['a torn text line', 'level=error msg="no', 'level=error msg="no'],
    ["Go's own escapes", 'level=error msg="bell \\a"', 'level=error msg="bell \\a"'],
  ])('should be readable for %s', (_, words, message) => {
    expect(messageOf(words)).toBe(message);
  });

  // logrus quotes a message only where it has to.
  it('should be readable for a text log of one word', () => {
    expect(messageOf('time="2026-01-02T03:04:05Z" level=error msg=EOF')).toBe('EOF');
  });
});
