import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
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
import type { Container } from '../support/engine.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { type FailingCriu, installFailingCriu } from '../support/failing-criu.ts';
import { imageNames } from '../support/image-names.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { run } from '../support/run.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { mountsUnder } from '../support/sweep.ts';
import { waitFor } from '../support/wait.ts';

describe.skipIf(requireRealStack().skip)('a wrapper that is killed', () => {
  let stack: Stack;
  let image: string;
  let criu: FailingCriu;

  beforeAll(async () => {
    stack = await startStack();
    image = await busyboxImage(stack);
    criu = installFailingCriu(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const runJob = (id: string, key: string) =>
    ctrEngine(stack).run({ id, image, args: counting, env: enabled(key) });
  const recordOf = ({ bundle }: Container) => JSON.parse(readFileSync(join(bundle, 'tardis.json'), 'utf8'));
  const imagesOf = (key: string) => imageNames(join(stack.checkpointRoot, key));

  /** The pids of this stack's processes whose command line has all these words. */
  function pidsOf(...words: string[]): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        const line = commandLine(pid);
        return words.every((word) => line.includes(word));
      })
      .map(Number);
  }

  function commandLine(pid: string): string[] {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    } catch {
      return [];
    }
  }

  const steps = (container: Container): string[] =>
    (recordOf(container).history as { to: string }[]).map(({ to }) => to);

  /** The cgroups of a container, on every hierarchy. */
  const cgroupsNamed = (id: string) =>
    ['', ...readdirSync('/sys/fs/cgroup')]
      .map((controller) => join('/sys/fs/cgroup', controller, stack.namespace, id))
      .filter(existsSync);

  /** Ends a job with a checkpoint and starts it again: it goes on at the next number. */
  async function carryOn(first: Container, key: string): Promise<void> {
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    const last = ticksOf(first).length;
    await first.remove();
    const next = await runJob(`${key}-next`, key);
    await next.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(next)[0]).toBe(last + 1);
    await next.remove();
  }

  const hangingCriu = () => pidsOf(join(stack.binDir, 'criu'));
  const wrapperOf = (command: string, id: string) =>
    pidsOf(`${dirname(stack.runtime)}/../dist/tardis-runc.cjs`, command, id);

  async function kill(what: string, find: () => number[]): Promise<void> {
    const pids = find();
    expect(pids, what).not.toEqual([]);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await waitFor(`${what} to end`, () => find().length === 0);
  }

  async function expectToCountOn(container: Container): Promise<void> {
    const at = ticksOf(container).length;
    await container.waitForLine(new RegExp(`^tick ${at + 3}$`));
    expect(ticksOf(container)).toEqual(ticksOf(container).map((_, i) => i + 1));
    expect(await container.status()).toBe('running');
    expect(recordOf(container).snapshot.value).toEqual({ alive: 'running' });
  }

  /** Whatever the orphans of a killed wrapper do: fail, because criu is killed too, or finish what they began. */
  const orphans = [
    { title: 'criu is killed too', end: () => kill('criu', hangingCriu) },
    { title: 'criu goes on without it', end: async () => criu.behave() },
  ];
  test.each(orphans)(
    'should leave the job running, and no image, when it dies over a dump and $title',
    async ({ title, end }) => {
      const key = `dump-${title.replaceAll(' ', '-')}`;
      const id = `${key}-1`;
      const first = await runJob(id, key);
      await first.waitForLine(/^tick 2$/);
      await first.checkpoint();

      criu.hang('checkpoint');
      onTestFinished(() => criu.behave());
      const asked = first.checkpoint({ exit: true, mayFail: true });
      await waitFor('criu to be called', () => criu.reached());
      expect(imagesOf(key)).toEqual(['1', '2.partial', 'current']);
      await kill('the wrapper', () => wrapperOf('checkpoint', id));
      await end();
      // containerd sends a `resume` after every checkpoint: the command that waits for what is left of the dead
      // wrapper, and finds its work.
      const { exitCode, imagePath } = await asked;
      expect(exitCode).not.toBe(0);
      expect(steps(first)).toEqual(
        expect.arrayContaining([
          'alive.checkpointing/dumping',
          'recovering',
          'alive.paused',
          'alive.running',
        ]),
      );
      expect(pidsOf('checkpoint', id)).toEqual([]);
      await expectToCountOn(first);
      expect(imagesOf(key)).toEqual(['1', 'current']);
      expect(existsSync(imagePath) ? readdirSync(imagePath) : []).toEqual([]);

      criu.behave();
      await carryOn(first, key);
      expect(imagesOf(key)).toEqual(['1', '2', 'current']);
    },
  );

  test('should be made good by a checkpoint too, which then makes an image', async () => {
    const key = 'again';
    const first = await runJob('again-1', key);
    await first.waitForLine(/^tick 2$/);
    criu.hang('checkpoint');
    onTestFinished(() => criu.behave());
    const imagePath = join(stack.dir, 'again');
    const ask = () =>
      run(
        stack.runtime,
        ['--root', first.runcRoot, 'checkpoint', '--leave-running', '--image-path', imagePath, 'again-1'],
        {
          env: stack.env,
          mayFail: true,
        },
      );
    const asked = ask();
    await waitFor('criu to be called', () => criu.reached());
    await kill('the wrapper', () => wrapperOf('checkpoint', 'again-1'));
    await kill('criu', hangingCriu);
    criu.behave();
    expect((await asked).exitCode).not.toBe(0);
    expect(imagesOf(key)).toEqual(['1.partial']);
    expect(await ask()).toMatchObject({ exitCode: 0, stderr: '' });
    expect(imagesOf(key)).toEqual(['1', 'current']);
    expect(existsSync(join(imagePath, 'inventory.img'))).toBe(true);
    await expectToCountOn(first);
    await carryOn(first, key);
  });

  test('should leave nothing to its delete when it dies over a restore, not even the criu that hangs', async () => {
    const key = 'restore';
    const first = await runJob(`${key}-1`, key);
    await first.waitForLine(/^tick 2$/);
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    const last = ticksOf(first).length;
    await first.remove();

    const id = `${key}-2`;
    criu.hang('restore');
    onTestFinished(() => criu.behave());
    const refused = expect(runJob(id, key)).rejects.toThrow(/OCI runtime create failed/);
    await waitFor('criu to be called', () => criu.reached());
    await kill('the wrapper', () => wrapperOf('create', id));
    // containerd deletes what it could not create.
    await refused;
    expect(hangingCriu()).toEqual([]);
    expect(pidsOf('restore', id)).toEqual([]);
    criu.behave();
    const traces = [
      join(first.bundle, '..', id),
      join(first.runcRoot, id),
      join(stack.runDir, 'containers', first.runcRoot, id),
      join(stack.runDir, 'locks', first.runcRoot, id),
    ];
    expect(traces.filter(existsSync)).toEqual([]);
    expect(mountsUnder(stack.dir)).toEqual([]);
    expect(cgroupsNamed(id)).toEqual([]);
    expect(imagesOf(key)).toEqual(['1', 'current']);

    // The same id once more: nothing of the dead one is taken for its own.
    await stack.ctr(['containers', 'delete', id]);
    const second = await runJob(id, key);
    await second.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(second)[0]).toBe(last + 1);
    await second.remove();
  });
});
