import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFailed, onTestFinished, test } from 'vitest';
import type { Engine } from '../support/engine.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { dockerEngine } from '../support/engine-docker.ts';
import { installFailingCriu } from '../support/failing-criu.ts';
import { fakeRunc } from '../support/fake-runc.ts';
import { busyboxImage, debianImage } from '../support/images.ts';
import { fixturesDir, hostPath, whichOrThrow } from '../support/paths.ts';
import { requireRealStack } from '../support/requires.ts';
import { run } from '../support/run.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { bridgesOf, leftovers, shimSockets } from '../support/sweep.ts';
import { waitFor } from '../support/wait.ts';

/** Counts for ever, so that a lost or repeated number would show. */
const counting = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done'];

const engines: Record<Engine['name'], (stack: Stack) => Engine> = { ctr: ctrEngine, docker: dockerEngine };

describe.skipIf(requireRealStack({ docker: true }).skip)('the end-to-end harness with plain runc', () => {
  let stack: Stack;
  let image: string;

  beforeAll(async () => {
    stack = await startStack({ docker: true, runtime: whichOrThrow('runc') });
    image = await busyboxImage(stack);
  });
  afterAll(() => stack?.stop());

  describe.each(Object.keys(engines) as Engine['name'][])('%s', (name) => {
    test.each([
      { title: 'print the ticks of a counting container', spec: {} },
      { title: 'print the ticks of a container with a terminal', spec: { tty: true } },
      { title: 'print the ticks of a job that is not root', spec: { user: '1000:1000' } },
      { title: "print the ticks of a container in the host's network", spec: { network: 'host' } },
    ])('should $title, before and after a checkpoint', async ({ spec }) => {
      onTestFailed(() => console.log(stack.logs()));
      const container = await engines[name](stack).run({ id: `${name}-a`, image, args: counting, ...spec });
      await container.waitForLine(/^tick 2$/);
      expect((await container.exec(['id', '-u'])).stdout).toBe(spec.user ? '1000' : '0');
      expect(existsSync(join(container.bundle, 'config.json'))).toBe(true);
      expect(existsSync(join(container.runcRoot, container.ociId, 'state.json'))).toBe(true);

      const { imagePath } = await container.checkpoint();
      expect(existsSync(join(imagePath, 'inventory.img'))).toBe(true);
      const before = container.lines().length;
      await container.waitForLine(new RegExp(`^tick ${before + 2}$`));

      await container.checkpoint({ exit: true });
      expect(await container.waitForExit()).toBe(137);
      const expected = Array.from(container.lines(), (_, i) => `tick ${i + 1}`);
      expect(container.lines()).toEqual(expected);
      await container.remove();
      expect(await container.status()).toBe('gone');
    });

    test('should tell the exit status and all output of a container', async () => {
      const source = join(stack.dir, `${name}-seen`);
      mkdirSync(source);
      const binds = [{ source, destination: '/seen' }];
      // It ends when its words have arrived: containerd 1.6 closes a log that both streams share at the end of the
      // first one, and loses what the other still has to say (copyPipes in its pkg/process/io.go).
      const words = 'echo to stdout; echo to stderr >&2';
      const args = ['sh', '-c', `${words}; until [ -e /seen/it ]; do sleep 0.01; done; exit 3`];
      const container = await engines[name](stack).run({ id: `${name}-b`, image, args, binds });
      for (const stream of ['stdout', 'stderr']) await container.waitForLine(new RegExp(`^to ${stream}$`));
      writeFileSync(join(source, 'it'), '');
      expect(await container.waitForExit()).toBe(3);
      expect(container.lines().sort()).toEqual(['to stderr', 'to stdout']);
      await container.remove();
    });

    test('should hand environment, bind mounts and pauses to the container', async () => {
      const source = join(stack.dir, `${name}-shared`);
      mkdirSync(source);
      const spec = { env: { WORD: 'two words' }, binds: [{ source, destination: '/shared' }] };
      const args = ['sh', '-c', 'echo "$WORD" >/shared/word; exec sleep 1000'];
      const container = await engines[name](stack).run({ id: `${name}-c`, image, args, ...spec });
      const written = () => existsSync(join(source, 'word')) && readFileSync(join(source, 'word'), 'utf8');
      expect(await waitFor('the word', written)).toBe('two words\n');
      await container.pause();
      expect(await container.status()).toBe('paused');
      await container.resume();
      expect(await container.status()).toBe('running');
      await container.remove();
    });

    test('should fail a checkpoint while criu is told to, and succeed again afterwards', async () => {
      const criu = installFailingCriu(stack);
      onTestFinished(() => criu.behave());
      const container = await engines[name](stack).run({ id: `${name}-d`, image, args: counting });
      criu.fail('checkpoint');
      const failed = await container.checkpoint({ mayFail: true });
      expect(failed).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('criu') });
      criu.fail('restore');
      await container.checkpoint();

      criu.hang('checkpoint');
      const hanging = container.checkpoint();
      // No question to the engine meanwhile: the shim answers none until the checkpoint is done.
      await waitFor('criu to be called', () => criu.reached());
      criu.behave();
      await hanging;
      const before = container.lines().length;
      await container.waitForLine(new RegExp(`^tick ${before + 2}$`));
      await container.remove();
    });
  });

  test('should type into the terminal of a ctr container', async () => {
    const args = ['sh', '-c', 'while read -r word; do echo "got $word"; done'];
    const container = await ctrEngine(stack).run({ id: 'typed', image, args, tty: true });
    container.type('hello\n');
    await container.waitForLine(/^got hello$/);
    await container.remove();
  });

  test('should let plain runc carry on a job that is not root', async () => {
    const container = await ctrEngine(stack).run({ id: 'moved', image, args: counting, user: '1000:1000' });
    await container.waitForLine(/^tick 3$/);
    const { imagePath } = await container.checkpoint({ exit: true });
    const last = container.lines().length;
    // A stopped task keeps its bundle and root file system until it is deleted.
    const restored = restore(stack, {
      root: container.runcRoot,
      bundle: container.bundle,
      imagePath,
      id: 'moved-on',
    });
    await waitFor('the next ticks', () => /^tick (\d+)\n(tick \d+\n){2}/.test(restored.output()), {
      seen: restored.output,
    });
    expect(restored.output()).toMatch(new RegExp(`^tick ${last + 1}\n`));
    const { stdout } = await run('runc', ['--root', container.runcRoot, 'state', 'moved-on']);
    const { pid } = JSON.parse(stdout) as { pid: number };
    expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/^Uid:\t1000/m);
    // It may end before runc has said that it sent the signal.
    const closed = once(restored.runc, 'close');
    await run('runc', ['--root', container.runcRoot, 'kill', 'moved-on', 'KILL']);
    await closed;
    await container.remove();
  });

  test('should run python, redis, postgres, nginx and sqlite from the Debian image', {
    timeout: 900_000,
  }, async () => {
    const debian = await debianImage(stack);
    const script = `set -e; exec 2>&1
      python3 -c 'import numpy; print("numpy", numpy.arange(4).sum())'
      redis-server --version; nginx -v; sqlite3 :memory: "select 'sqlite', 1 + 1"; ps --version
      su postgres -c "/usr/lib/postgresql/*/bin/initdb -D /tmp/db >/dev/null && echo select 6 \\* 7 |
        /usr/lib/postgresql/*/bin/postgres --single -D /tmp/db postgres"`;
    for (const engine of Object.values(engines)) {
      const container = await engine(stack).run({ id: 'debian', image: debian, args: ['sh', '-c', script] });
      const status = await container.waitForExit({ timeoutMs: 60_000 });
      expect({ status, output: container.output() }).toEqual({
        status: 0,
        output: expect.stringMatching(/numpy 6.*Redis server.*nginx version.*sqlite\|2.*"42"/s),
      });
      await container.remove();
    }
  });
});

describe.skipIf(requireRealStack({ docker: true }).skip)('the end of a stack', () => {
  test('should leave no process, mount, cgroup, bridge, socket or directory behind after stop()', async () => {
    const stack = await startStack({
      docker: true,
      runtime: whichOrThrow('runc'),
      tmpfs: { checkpoints: '16m' },
    });
    const image = await busyboxImage(stack);
    await stack.docker(['network', 'create', 'bridged']);
    const [ctr, docker] = [ctrEngine(stack), dockerEngine(stack)];
    await ctr.run({ id: 'running', image, args: counting });
    await ctr.run({ id: 'typing', image, args: counting, tty: true });
    await (await ctr.run({ id: 'paused', image, args: counting })).pause();
    await docker.run({ id: 'networked', image, args: counting, network: 'bridged' });
    await (await docker.run({ id: 'frozen', image, args: counting })).pause();
    const outside = [
      ...shimSockets(stack.dir),
      ...bridgesOf(stack.dir).map((bridge) => `/sys/class/net/${bridge}`),
      `/run/containerd/runc/${stack.namespace}`,
    ];
    expect(outside.filter(existsSync)).toHaveLength(7);
    const kinds = leftovers(stack.dir).map((line) => line.slice(0, line.indexOf(' ')));
    expect(new Set(kinds)).toEqual(new Set(['process', 'mount', 'cgroup', 'runc', 'bridge', 'directory']));

    await stack.stop();

    expect(leftovers(stack.dir)).toEqual([]);
    expect(outside.filter(existsSync)).toEqual([]);
  });

  test.each(['SIGKILL', 'SIGINT'] as const)(
    'should come by itself when its owner dies of %s',
    async (signal) => {
      const owner = spawn(process.execPath, [join(fixturesDir, 'stack-owner.ts')], {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { PATH: hostPath() },
      });
      const [said] = await once(owner.stdout, 'data');
      const dir = String(said).trim();
      expect(leftovers(dir).length).toBeGreaterThan(3);

      owner.kill(signal);

      await waitFor(`${dir} to be swept`, () => leftovers(dir).length === 0, {
        seen: () => leftovers(dir).join(', '),
      });
    },
  );
});

test('fake-runc should record a call byte for byte, and answer as told', async () => {
  const fake = fakeRunc();
  onTestFinished(() => fake.remove());
  fake.answer({ status: 7, stdout: 'said', stderr: 'whispered' });
  const args = ['--log', '/a b/log', 'create', '', 'two\nlines', '-x=é'];
  const ran = await run(fake.path, args, {
    env: { PATH: hostPath(), WORD: 'two\nlines' },
    cwd: '/',
    mayFail: true,
  });
  expect(ran).toMatchObject({ exitCode: 7, stdout: 'said', stderr: 'whispered' });
  await run(fake.path, [], { env: { PATH: hostPath() }, mayFail: true });

  const [first, second] = fake.calls();
  expect(first).toMatchObject({ args, env: { PATH: hostPath(), WORD: 'two\nlines' }, cwd: '/' });
  expect(first?.fds.get(0)).toMatchObject({ target: '/dev/null' });
  expect(first?.fds.get(1)?.target).toMatch(/^(pipe|socket):/);
  expect(second?.args).toEqual([]);
});

/** `runc restore` in the foreground, with the container's output in a pipe. */
function restore(stack: Stack, from: { root: string; bundle: string; imagePath: string; id: string }) {
  const runc = spawn(
    'runc',
    [
      ...['--root', from.root, 'restore', '--bundle', from.bundle, '--image-path', from.imagePath],
      ...['--work-path', join(stack.dir, 'restore-work'), from.id],
    ],
    { env: stack.env, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let output = '';
  const hear = (text: string) => {
    output += text;
  };
  runc.stdout.setEncoding('utf8').on('data', hear);
  runc.stderr.setEncoding('utf8').on('data', hear);
  return { runc, output: () => output };
}
