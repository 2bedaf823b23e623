import { readdirSync, readFileSync } from 'node:fs';
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
import type { Container } from '../support/engine.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { type FailingCriu, installFailingCriu } from '../support/failing-criu.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { run } from '../support/run.ts';
import { soak } from '../support/soak.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

describe.skipIf(requireRealStack().skip)('many containers on one host', () => {
  let stack: Stack;
  let image: string;

  beforeAll(async () => {
    stack = await startStack({ rootJobsOnly: true, config: { maxDumps: 2, maxRestores: 3 } });
    image = await busyboxImage(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  test('should all be carried on when they are checkpointed and restored together, a few at a time', async () => {
    const { lost, atOnce } = await soak(stack, { image, count: 24 });
    expect(lost.map(({ id, phase, reason }) => `${id}, ${phase}: ${reason}`).join('\n')).toBe('');
    expect(atOnce.dumps).toBeGreaterThan(0);
    expect(atOnce.dumps).toBeLessThanOrEqual(2);
    expect(atOnce.restores).toBeGreaterThan(0);
    expect(atOnce.restores).toBeLessThanOrEqual(3);
  }, 600_000);
});

describe.skipIf(requireRealStack().skip)('a container that waits for the only slot for dumps', () => {
  let stack: Stack;
  let image: string;
  let criu: FailingCriu;

  beforeAll(async () => {
    stack = await startStack({ rootJobsOnly: true, config: { maxDumps: 1 } });
    image = await busyboxImage(stack);
    criu = installFailingCriu(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const start = async (id: string): Promise<Container> => {
    const container = await ctrEngine(stack).run({ id, image, args: counting, env: enabled(id) });
    await container.waitForLine(/^tick 2$/);
    return container;
  };
  /** A checkpoint that is asked of the runtime itself: containerd would have paused the container before. */
  const checkpoint = ({ id, runcRoot }: Container) => {
    const paths = ['--image-path', join(stack.dir, 'images', id)];
    const words = ['--root', runcRoot, 'checkpoint', '--leave-running', ...paths, id];
    return run(stack.runtime, words, { env: stack.env, mayFail: true });
  };
  const hasReached = ({ bundle }: Container, state: string): boolean =>
    (JSON.parse(readFileSync(join(bundle, 'tardis.json'), 'utf8')).history as { to: string }[]).some(
      ({ to }) => to === `alive.checkpointing/${state}`,
    );
  const reaches = (container: Container, state: string) =>
    waitFor(`${container.id} to come to ${state}`, () => hasReached(container, state));
  const wrapperOf = ({ id }: Container): number =>
    readFileSync(stack.logFile, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { id: string; command: string; pid: number })
      .findLast((line) => line.id === id && line.command === 'checkpoint')?.pid as number;

  test('should run on meanwhile, and have the slot when what a killed one had begun has ended', async () => {
    const [first, second] = [await start('slot-first'), await start('slot-second')];
    criu.hang('checkpoint');
    onTestFinished(() => criu.behave());
    const killed = checkpoint(first);
    await waitFor('criu to be called', () => criu.reached());

    const waiting = checkpoint(second);
    await reaches(second, 'preparing');
    await second.waitForLine(new RegExp(`^tick ${ticksOf(second).length + 5}$`));

    process.kill(wrapperOf(first), 'SIGKILL');
    expect((await killed).exitCode).not.toBe(0);
    // The dead one's criu is at work still, and the host has a slot for one.
    await second.waitForLine(new RegExp(`^tick ${ticksOf(second).length + 5}$`));
    expect(hasReached(second, 'freezing')).toBe(false);
    criu.behave();
    expect(await waiting).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await checkpoint(first)).toMatchObject({ exitCode: 0, stderr: '' });
    for (const container of [first, second]) {
      expect(readdirSync(join(stack.checkpointRoot, container.id))).toContain('current');
      await container.waitForLine(new RegExp(`^tick ${ticksOf(container).length + 3}$`));
      expect(ticksOf(container)).toEqual(ticksOf(container).map((_, i) => i + 1));
      await container.remove();
    }
  });
});
