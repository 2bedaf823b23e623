import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import {
  afterAll,
  beforeAll,
  beforeEach,
  describe,
  expect,
  onTestFailed,
  onTestFinished,
  test,
} from 'vitest';
import { type BundleSpec, type Call, type DirectRunc, directRunc } from '../support/direct-runc.ts';
import { installFailingCriu } from '../support/failing-criu.ts';
import { counting, enabled } from '../support/jobs.ts';
import { completeLines } from '../support/lines.ts';
import { fixturesDir } from '../support/paths.ts';
import { requireRealStack } from '../support/requires.ts';
import { run } from '../support/run.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

describe.skipIf(requireRealStack().skip)('a runtime that is called without an engine', () => {
  let stack: Stack;
  let runc: DirectRunc;

  beforeAll(async () => {
    stack = await startStack();
    runc = await directRunc(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const bundle = (name: string, key: string, more: Partial<BundleSpec> = {}) =>
    runc.bundle(name, { args: counting, env: enabled(key), ...more });
  const create = async (id: string, bundlePath: string, flags: string[] = []): Promise<Call> => {
    const call = runc.begin(['create', '--bundle', bundlePath, ...flags, id]);
    expect({ status: await call.status(), output: call.output() }).toEqual({ status: 0, output: '' });
    return call;
  };
  const start = async (id: string, key: string, more: Partial<BundleSpec> = {}): Promise<Call> => {
    const call = await create(id, await bundle(id, key, more));
    await runc.run(['start', id]);
    return call;
  };
  /** A job of that key that has been checkpointed and ended at its third number or later; its last number. */
  const checkpointed = async (key: string, more: Partial<BundleSpec> = {}): Promise<number> => {
    const call = await start(`${key}-1`, key, more);
    await call.waitForLine(/^tick 3$/);
    await runc.run(['checkpoint', '--image-path', join(stack.dir, `${key}-image`), `${key}-1`]);
    return expectTicks(call, 1);
  };
  /** Nothing but ticks, from that number on; the last one. */
  const expectTicks = (call: Call, first: number): number => {
    expect(call.lines()).toEqual(Array.from(call.lines(), (_, i) => `tick ${first + i}`));
    return first + call.lines().length - 1;
  };
  const carriesOn = async (call: Call, last: number) => {
    await call.waitForLine(new RegExp(`^tick ${last + 3}$`));
    expectTicks(call, last + 1);
  };
  const manifest = (key: string) =>
    JSON.parse(readFileSync(join(stack.checkpointRoot, key, 'current/tardis.json'), 'utf8'));
  const isGone = async (id: string) =>
    (await runc.run(['state', id], { program: 'runc', mayFail: true })).stderr.includes('does not exist');

  test.each([
    { where: 'its default place', flags: [], image: 'checkpoint' },
    { where: 'a relative place', flags: ['--image-path', 'in/here'], image: 'in/here' },
    {
      where: 'a relative place, working in another',
      flags: ['--image-path', 'i', '--work-path', 'w'],
      image: 'i',
    },
  ])(
    'should put its image into $where, and carry the job and its whole root file system on',
    async ({ flags, image }) => {
      const key = `places-${image.length}`;
      const script =
        'echo $$ >/kept; i=0; while :; do i=$((i+1)); echo $i >>/log; echo tick $i; sleep 0.1; done';
      const job = { args: ['sh', '-c', script] };
      const first = await start(`${key}-1`, key, job);
      await first.waitForLine(/^tick 3$/);
      const cwd = join(stack.dir, key);
      mkdirSync(cwd);
      const ran = await runc.run(['checkpoint', ...flags, `${key}-1`], { cwd });
      expect([ran.stdout, ran.stderr]).toEqual(['', '']);
      const last = expectTicks(first, 1);
      expect(await isGone(`${key}-1`)).toBe(true);
      expect(existsSync(join(cwd, image, 'inventory.img'))).toBe(true);
      expect(existsSync(join(cwd, 'w/dump.log'))).toBe(flags.includes('w'));
      expect(manifest(key).rootfs.kind).toBe('whole');

      const second = await start(`${key}-2`, key, job);
      await carriesOn(second, last);
      const log = completeLines(readFileSync(join(runc.bundles, `${key}-2`, 'rootfs/log'), 'utf8'));
      expect(log.slice(0, last + 3)).toEqual(Array.from({ length: last + 3 }, (_, i) => String(i + 1)));
      expect(existsSync(join(runc.bundles, `${key}-2`, 'rootfs/kept'))).toBe(true);
      await runc.run(['delete', `${key}-2`, '--force']);
      expect(await isGone(`${key}-2`)).toBe(true);
    },
  );

  test('should start afresh in the foreground and carry on detached, where there is an image', async () => {
    const last = await checkpointed('run');
    const foreground = runc.begin(['run', '--bundle', await bundle('run-2', 'run'), 'run-2']);
    await foreground.waitForLine(/^tick 3$/);
    expectTicks(foreground, 1);
    await runc.run(['kill', 'run-2', 'KILL']);
    expect(await foreground.status()).toBe(137);
    expect(await isGone('run-2')).toBe(true);

    const pidFile = join(stack.dir, 'run-3.pid');
    const words = ['run', '-d', '-b', await bundle('run-3', 'run'), '--pid-file', pidFile, 'run-3'];
    const detached = runc.begin(words);
    expect(await detached.status()).toBe(0);
    await carriesOn(detached, last);
    expect(await runc.state('run-3')).toMatchObject({
      status: 'running',
      pid: Number(readFileSync(pidFile, 'utf8')),
    });
    await runc.run(['delete', '--force', 'run-3']);
  });

  test('should hand on the exit status of a job in the foreground', async () => {
    const args = ['sh', '-c', 'echo here; exit 7'];
    const call = runc.begin(['run', '--bundle', await bundle('seven', 'seven', { args }), 'seven']);
    expect(await call.status()).toBe(7);
    expect(call.output()).toBe('here\n');
  });

  test('should take up a container that is restored from an image path, and checkpoint it again', async () => {
    const last = await checkpointed('given');
    const from = [
      '--image-path',
      join(stack.dir, 'given-image'),
      '--work-path',
      join(stack.dir, 'given-work'),
    ];
    const words = ['restore', '--detach', ...from, '--bundle', await bundle('given-2', 'given'), 'given-2'];
    const second = runc.begin(words);
    expect({ status: await second.status(), said: second.output().replace(/tick \d+\n/g, '') }).toEqual({
      status: 0,
      said: '',
    });
    await carriesOn(second, last);
    await runc.run(['checkpoint', '--image-path', join(stack.dir, 'given-again'), 'given-2']);
    const next = expectTicks(second, last + 1);
    expect(manifest('given').generation).toBe(2);
    await carriesOn(await start('given-3', 'given'), next);
    await runc.run(['delete', '--force', 'given-3']);
  });

  test('should leave a paused container paused, after a checkpoint and after a failed one', async () => {
    const criu = installFailingCriu(stack);
    onTestFinished(() => criu.behave());
    const job = await start('paused', 'paused');
    await job.waitForLine(/^tick 3$/);
    await runc.run(['pause', 'paused']);
    const leave = [
      'checkpoint',
      '--leave-running',
      '--image-path',
      join(stack.dir, 'paused-image'),
      'paused',
    ];
    criu.fail('checkpoint');
    const failed = await runc.run(leave, { mayFail: true });
    expect(failed.exitCode).toBe(1);
    expect(failed.stderr).toMatch(/^CRIU could not dump the container: .+$/);
    expect((await runc.state('paused')).status).toBe('paused');
    criu.behave();
    await runc.run(leave);
    expect((await runc.state('paused')).status).toBe('paused');
    const last = expectTicks(job, 1);
    await runc.run(['resume', 'paused']);
    await job.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expectTicks(job, 1);
    await runc.run(['delete', '-f', 'paused']);
  });

  describe('while a restored job is held', () => {
    test('should tell its pid, and that it does not run', async () => {
      const last = await checkpointed('told');
      const pidFile = join(stack.dir, 'told.pid');
      const held = await create('told-2', await bundle('told-2', 'told'), ['--pid-file', pidFile]);
      const { status, pid } = await runc.state('told-2');
      expect(status).toBe('paused');
      expect(Number(readFileSync(pidFile, 'utf8'))).toBe(pid);
      expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/^NSpid:\s+\d+\s+1$/m);
      expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toBe(`${counting.join('\0')}\0`);
      await runc.run(['start', 'told-2']);
      await carriesOn(held, last);
      expect(await runc.state('told-2')).toEqual(expect.objectContaining({ status: 'running', pid }));
      await runc.run(['delete', '--force', 'told-2']);
    });

    test('should end it by SIGKILL without its running a step', async () => {
      await checkpointed('killed');
      const held = await create('killed-2', await bundle('killed-2', 'killed'));
      await runc.run(['kill', 'killed-2', '9']);
      await waitFor('the job to end', async () => (await runc.state('killed-2')).status === 'stopped');
      expect(held.output()).toBe('');
      await runc.run(['delete', 'killed-2']);
      expect(await isGone('killed-2')).toBe(true);
    });

    test('should deliver SIGTERM at its start', async () => {
      const script = `trap 'echo terminated; exit 0' TERM; ${counting.at(-1)}`;
      const last = await checkpointed('terminated', { args: ['sh', '-c', script] });
      const second = await bundle('terminated-2', 'terminated', { args: ['sh', '-c', script] });
      const held = await create('terminated-2', second);
      await runc.run(['kill', 'terminated-2', 'TERM']);
      expect((await runc.state('terminated-2')).status).toBe('paused');
      expect(held.output()).toBe('');
      await runc.run(['start', 'terminated-2']);
      await held.waitForLine(/^terminated$/);
      expect(held.lines().filter((line) => line !== 'terminated' && line !== `tick ${last + 1}`)).toEqual([]);
      await waitFor('the job to end', async () => (await runc.state('terminated-2')).status === 'stopped');
      await runc.run(['delete', 'terminated-2']);
    });
  });

  test('should give a job its standard streams as the caller had them, created and restored', async () => {
    await checkpointed('streams');
    for (const id of ['streams-2', 'streams-3']) {
      // The third begins afresh: no image has its key.
      await create(id, await bundle(id, id === 'streams-2' ? 'streams' : id));
      const { pid } = await runc.state(id);
      for (const fd of [0, 1, 2]) {
        expect(readlinkSync(`/proc/${pid}/fd/${fd}`)).toMatch(/^pipe:/);
        const flags = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))?.[1];
        const nonBlocking = 0o4000;
        expect(Number.parseInt(flags as string, 8) & nonBlocking).toBe(0);
      }
      await runc.run(['delete', '--force', id]);
    }
  });

  test('should log nothing that an engine would take for an error, where all goes well', async () => {
    const last = await checkpointed('logged');
    const log = join(stack.dir, 'logged.json');
    const globals = ['--log', log, '--log-format', 'json'];
    const second = runc.begin([
      ...[...globals, 'create', '--bundle', await bundle('logged-2', 'logged'), 'logged-2'],
    ]);
    expect(await second.status()).toBe(0);
    for (const words of [['start'], ['pause'], ['resume'], ['checkpoint', '--leave-running']])
      await runc.run([...globals, ...words, 'logged-2'], { cwd: stack.dir });
    await second.waitForLine(new RegExp(`^tick ${last + 1}$`));
    await runc.run([...globals, 'delete', '--force', 'logged-2']);
    expect(readFileSync(log, { encoding: 'utf8', flag: 'a+' })).not.toContain('"level":"error"');
    expect(expectTicks(second, last + 1)).toBeGreaterThan(last);
  });

  test('should send the terminal of a restored job to the console socket', async () => {
    const echo = ['sh', '-c', 'n=0; while read -r word; do n=$((n+1)); echo "$n $word"; done'];
    const terminal = { args: echo, terminal: true };
    const program = join(stack.dir, 'receive-console');
    await run('gcc', ['-O2', '-Wall', '-o', program, join(fixturesDir, 'receive-console.c')]);
    const receive = async (socket: string) => {
      const receiver = spawn(program, [socket], { stdio: ['pipe', 'pipe', 'inherit'] });
      onTestFinished(() => void receiver.kill());
      let said = '';
      receiver.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      await waitFor(`${socket} to listen`, () => existsSync(socket));
      return { type: (text: string) => receiver.stdin.write(text), said: () => said };
    };
    const typed = async (id: string, count: number, word: string) => {
      const socket = join(stack.dir, `${id}.sock`);
      const console = await receive(socket);
      await create(id, await bundle(id, 'typed', terminal), ['--console-socket', socket]);
      await runc.run(['start', id]);
      console.type(`${word}\n`);
      await waitFor(`${id} to answer`, () => completeLines(console.said()).includes(`${count} ${word}`), {
        seen: console.said,
      });
    };
    await typed('typed-1', 1, 'once');
    await runc.run(['checkpoint', 'typed-1'], { cwd: stack.dir });
    await typed('typed-2', 2, 'again');
    await runc.run(['delete', '--force', 'typed-2']);
  });
});
