import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
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
import { imageNames } from '../support/image-names.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { race } from '../support/race.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';

/** A stack, and its engine's way to run a job of some key. */
type TestHost = {
  stack: Stack;
  criu: FailingCriu;
  run: (id: string, key: string, env?: Record<string, string>, args?: string[]) => Promise<Container>;
};

describe.skipIf(requireRealStack().skip)('the lives of a job, on two hosts with one place for images', () => {
  let here: TestHost;
  let there: TestHost;

  async function startHost(config: Record<string, unknown>): Promise<TestHost> {
    const stack = await startStack({ rootJobsOnly: true, config });
    const image = await busyboxImage(stack);
    const criu = installFailingCriu(stack);
    return {
      stack,
      criu,
      run: (id, key, env = {}, args = counting) =>
        ctrEngine(stack).run({ id, image, args, env: enabled(key, env) }),
    };
  }

  beforeAll(async () => {
    here = await startHost({ hostId: 'here' });
    const { checkpointRoot } = here.stack;
    there = await startHost({ hostId: 'there', checkpointRoot });
  });
  afterAll(async () => {
    await there?.stack.stop();
    await here?.stack.stop();
  });
  beforeEach(() => onTestFailed(() => console.log(here.stack.logs(), there.stack.logs())));

  const imagesOf = (key: string) => imageNames(join(here.stack.checkpointRoot, key));
  const logged = ({ stack }: TestHost, id: string): string[] =>
    (existsSync(stack.logFile) ? readFileSync(stack.logFile, 'utf8') : '')
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as { id: string; level: string; msg: string })
      .filter((line) => line.id === id && line.level === 'warn')
      .map(({ msg }) => msg);
  const startsAt = async (container: Container): Promise<number | undefined> => {
    await container.waitForLine(/^tick \d+$/);
    return ticksOf(container)[0];
  };

  /** Runs a job up to a checkpoint with exit; returns the last number it printed. */
  async function checkpointed(host: TestHost, id: string, key: string, args?: string[]): Promise<number> {
    const job = await host.run(id, key, {}, args);
    await job.waitForLine(/^tick 2$/);
    await job.checkpoint({ exit: true });
    await job.waitForExit();
    await job.remove();
    return ticksOf(job).at(-1) ?? 0;
  }

  async function expectToCountOn(container: Container): Promise<void> {
    const at = ticksOf(container).length;
    await container.waitForLine(new RegExp(`^tick ${(ticksOf(container)[0] ?? 0) + at + 1}$`));
    expect(await container.status()).toBe('running');
  }

  test('should have one winner where ten containers are created at once, and no checkpoint of the others', async () => {
    const key = 'race';
    const last = await checkpointed(here, 'race', key);
    const running = await Promise.all(
      Array.from({ length: 10 }, (_, i) => (i % 2 ? here : there).run(`race-${i}`, key)),
    );
    const starts = await Promise.all(running.map(startsAt));
    const others = running.filter((_, i) => starts[i] === 1);
    expect(starts.sort((a = 0, b = 0) => a - b)).toEqual([...Array.from(others, () => 1), last + 1]);
    expect(others).toHaveLength(9);
    for (const other of others.slice(0, 2)) {
      const { exitCode, stderr } = await other.checkpoint({ mayFail: true });
      expect(exitCode).not.toBe(0);
      expect(stderr).toMatch(/has started from scratch while container race-\d /);
      await expectToCountOn(other);
    }
    expect(imagesOf(key)).toEqual(['1', 'current']);
    for (const container of running) await container.remove();
  });

  test('should have one winner of fifty creates on the two hosts, in every round', async () => {
    const rounds = await race([here.stack, there.stack], { count: 50, rounds: 2 });
    expect(rounds).toHaveLength(2);
  }, 300_000);

  test('should refuse the checkpoint of a container whose host was thought dead', async () => {
    const key = 'lost';
    const old = await here.run('lost-1', key);
    await old.waitForLine(/^tick 2$/);
    await old.checkpoint();
    const settings = readFileSync(there.stack.configFile, 'utf8');
    onTestFinished(() => writeFileSync(there.stack.configFile, settings));
    writeFileSync(
      there.stack.configFile,
      JSON.stringify({ ...JSON.parse(settings), takeoverAfterSeconds: 0 }),
    );
    const next = await there.run('lost-2', key);
    expect(await startsAt(next)).toBeGreaterThan(2);

    for (const exit of [false, true]) {
      const { exitCode, stderr } = await old.checkpoint({ exit, mayFail: true });
      expect(exitCode).not.toBe(0);
      expect(stderr).toMatch(/in epoch 1, but container lost-2 on host there took the job up in epoch \d+/);
      await expectToCountOn(old);
    }
    expect(imagesOf(key)).toEqual(['1', 'current']);
    await next.checkpoint({ exit: true });
    expect(imagesOf(key)).toEqual(['1', '2', 'current']);
    await old.remove();
    await next.remove();
  });

  test('should start from scratch beside a container that lives, and carry on once it is gone', async () => {
    const key = 'beside';
    const last = await checkpointed(here, 'beside-1', key);
    const first = await here.run('beside-2', key);
    expect(await startsAt(first)).toBe(last + 1);
    const beside = await here.run('beside-3', key);
    expect(await startsAt(beside)).toBe(1);
    expect(logged(here, 'beside-3')).toEqual([
      expect.stringMatching(/^container beside-2 on this host carries the job on.*starts from scratch/),
    ]);
    await beside.remove();
    await first.remove();
    const next = await here.run('beside-4', key);
    expect(await startsAt(next)).toBe(last + 1);
    await next.remove();
  });

  test('should not restore an image a third time that failed twice, but the one before it', async () => {
    const key = 'attempts';
    const first = await here.run('attempts-0', key);
    await first.waitForLine(/^tick 2$/);
    await first.checkpoint();
    const { length: kept } = ticksOf(first);
    await first.waitForLine(new RegExp(`^tick ${kept + 3}$`));
    await first.checkpoint({ exit: true });
    await first.remove();
    onTestFinished(() => here.criu.behave());

    here.criu.fail('restore');
    for (const attempt of [1, 2]) {
      const container = await here.run(`attempts-${attempt}`, key);
      expect(await startsAt(container)).toBe(1);
      await container.remove();
    }
    here.criu.behave();
    const third = await here.run('attempts-3', key);
    const start = (await startsAt(third)) ?? 0;
    expect(start).toBeGreaterThan(2);
    expect(start).toBeLessThanOrEqual(kept + 2);
    expect(logged(here, 'attempts-3')).toEqual([
      expect.stringMatching(
        /^generation 2 of attempts could not be restored on this host 2 times.*generation 1 is/,
      ),
    ]);
    await third.remove();
  });

  test('should take the image before where the newest is damaged, and keep as many as it is told', async () => {
    const key = 'fallback';
    const first = await here.run('fallback-1', key);
    const dumped: number[] = [];
    for (let i = 1; i <= 3; i++) {
      await first.waitForLine(new RegExp(`^tick ${ticksOf(first).length + 3}$`));
      await first.checkpoint({ exit: i === 3 });
      dumped.push(ticksOf(first).length);
    }
    await first.remove();
    expect(imagesOf(key)).toEqual(['2', '3', 'current']);
    appendFileSync(join(here.stack.checkpointRoot, key, '3', 'checkpoint', 'inventory.img'), 'x');
    const next = await here.run('fallback-2', key);
    const start = (await startsAt(next)) ?? 0;
    expect(start).toBeGreaterThan(dumped[0] ?? 0);
    expect(start).toBeLessThanOrEqual((dumped[1] ?? 0) + 1);
    expect(logged(here, 'fallback-2')).toEqual([
      expect.stringMatching(/^generation 3 is refused, 2 is taken: .*inventory\.img/),
    ]);
    expect(imagesOf(key)).toEqual(['2', '3', '3.failed.jsonl', 'current']);
    await next.remove();
  });

  describe('which end', () => {
    /** Counts until it is told that it is done. */
    const args = ['sh', '-c', 'i=0; until [ -e /done ]; do i=$((i+1)); echo tick $i; sleep 0.1; done'];

    async function ended(key: string, end: (job: Container) => Promise<unknown>): Promise<void> {
      const job = await here.run(`${key}-1`, key, {}, args);
      await job.waitForLine(/^tick 2$/);
      await job.checkpoint();
      await end(job);
      await job.waitForExit();
      await job.remove();
    }

    test.each([
      ['by itself', 'preempted', false],
      ['by itself', 'failure', false],
      ['by itself', 'always', true],
      ['by a signal', 'preempted', true],
    ] as const)('%s should be resumed as TARDIS_RESUME_AFTER=%s says', async (how, after, resumes) => {
      const key = `ended-${how.replaceAll(' ', '-')}-${after}`;
      await ended(key, (job) => (how === 'by itself' ? job.exec(['touch', '/done']) : job.kill('SIGKILL')));
      const next = await here.run(`${key}-2`, key, { TARDIS_RESUME_AFTER: after }, args);
      const start = (await startsAt(next)) ?? 0;
      if (resumes) expect(start).toBeGreaterThan(2);
      else expect(start).toBe(1);
      expect(logged(here, `${key}-2`)).toEqual(
        resumes ? [] : [expect.stringMatching(/ended by itself .*\(finished\): it starts from scratch/)],
      );
      expect(imagesOf(key)).toEqual(['1', 'current']);
      await next.remove();
    });
  });

  test('should leave nothing where no checkpoint was made', async () => {
    const job = await here.run('unmade', 'unmade');
    await job.waitForLine(/^tick 1$/);
    expect(existsSync(join(here.stack.checkpointRoot, 'unmade'))).toBe(true);
    await job.remove();
    expect(existsSync(join(here.stack.checkpointRoot, 'unmade'))).toBe(false);
  });
});
