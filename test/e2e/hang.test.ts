import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
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
import { type DirectRunc, directRunc } from '../support/direct-runc.ts';
import type { Container } from '../support/engine.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { engineNames, engines } from '../support/engines.ts';
import { type FailingCriu, installFailingCriu } from '../support/failing-criu.ts';
import { fuseShare, loopShare, type Share } from '../support/frozen-share.ts';
import { imageNames } from '../support/image-names.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { processesBy } from '../support/proc.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

/** That a job counts on from where it is, without a lost or a repeated number. */
async function expectToCountOn(container: Container, first = 1, timeoutMs = 30_000): Promise<void> {
  const at = ticksOf(container).at(-1) ?? 0;
  await container.waitForLine(new RegExp(`^tick ${at + 3}$`), { timeoutMs });
  expect(ticksOf(container)).toEqual(ticksOf(container).map((_, i) => first + i));
}

const processes = (...ends: string[]): number[] =>
  processesBy((words) => ends.every((end) => words.some((word) => word.endsWith(end))));

describe.skipIf(requireRealStack({ docker: true }).skip)('a CRIU that hangs', () => {
  let stack: Stack;
  let image: string;
  let criu: FailingCriu;

  beforeAll(async () => {
    stack = await startStack({
      docker: true,
      rootJobsOnly: true,
      config: { freezeStallSeconds: 2, maxFreezeSeconds: 6 },
    });
    image = await busyboxImage(stack);
    criu = installFailingCriu(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => {
    onTestFailed(() => console.log(stack.logs()));
    onTestFinished(() => criu.behave());
  });
  const imagesOf = (key: string) => imageNames(join(stack.checkpointRoot, key));

  describe.each(engineNames)('%s', (name) => {
    test.each([{ exit: true }, { exit: false }])(
      'a dump that hangs is ended, the job runs on, and the answer says where CRIU stood (exit: $exit)',
      async ({ exit }) => {
        const key = `${name}-dump-${exit}`;
        const job = await engines[name](stack).run({ id: key, image, args: counting, env: enabled(key) });
        await job.waitForLine(/^tick 2$/);
        criu.sleep('checkpoint');
        const asked = await job.checkpoint({ exit, mayFail: true });
        expect(asked.exitCode).not.toBe(0);
        expect(asked.stderr.split('\n')[0]).toMatch(
          /the checkpoint made no progress for \d+ s \(freezeStallSeconds is 2\) in step dumpMemory.*; it was ended, and the job runs on/,
        );
        expect(imagesOf(key)).toEqual([]);
        await expectToCountOn(job);
        expect(await job.status()).toBe('running');
        expect(processes('bin/tardis-guardian', job.ociId)).toEqual([]);
        criu.behave();
        await job.checkpoint({ exit: true });
        expect(imagesOf(key)).toEqual(['1', 'current']);
        await job.remove();
      },
    );

    test('a restore that hangs is ended, and its container starts from scratch with the reason', async () => {
      const key = `${name}-restore`;
      const job = { image, args: counting, env: enabled(key) };
      const first = await engines[name](stack).run({ id: `${key}-1`, ...job });
      await first.waitForLine(/^tick 3$/);
      await first.checkpoint({ exit: true });
      await first.waitForExit();
      await first.remove();
      criu.sleep('restore');
      const second = await engines[name](stack).run({ id: `${key}-2`, ...job });
      await expectToCountOn(second);
      const { snapshot } = JSON.parse(readFileSync(join(second.bundle, 'tardis.json'), 'utf8'));
      expect(snapshot.context.failure.message).toMatch(
        /^the restore made no progress for \d+ s .*; it was ended, and the container starts from scratch$/,
      );
      await second.remove();
      expect(processes(join(stack.binDir, 'criu'))).toEqual([]);
    });
  });

  test('a dump that goes on but takes longer than it may is ended, too', async () => {
    const job = await ctrEngine(stack).run({ id: 'long', image, args: counting, env: enabled('long') });
    await job.waitForLine(/^tick 2$/);
    criu.slow('checkpoint');
    const asked = await job.checkpoint({ exit: true, mayFail: true });
    expect(asked.stderr).toMatch(/the checkpoint took \d+ s, 6 are allowed \(maxFreezeSeconds/);
    await expectToCountOn(job);
    await job.remove();
  });

  test('a job that an operator has paused before stays paused', async () => {
    const job = await ctrEngine(stack).run({ id: 'paused', image, args: counting, env: enabled('paused') });
    await job.waitForLine(/^tick 2$/);
    await job.pause();
    const at = ticksOf(job).length;
    criu.sleep('checkpoint');
    // By hand: containerd does not checkpoint what is paused already.
    const image1 = join(stack.dir, 'given');
    const args = ['--root', job.runcRoot, 'checkpoint', '--image-path', image1, job.id];
    const child = spawn(stack.runtime, args, { env: stack.env, stdio: 'ignore' });
    const status = await new Promise((resolve) => child.once('exit', resolve));
    expect(status).toBe(1);
    expect(await job.status()).toBe('paused');
    expect(ticksOf(job)).toHaveLength(at);
    await job.resume();
    await expectToCountOn(job);
    await job.remove();
  });
});

describe.skipIf(requireRealStack().skip)('a CRIU that is slow', () => {
  test('a dump that gets on, if ever so slowly, is none that hangs', async () => {
    const stack = await startStack({ rootJobsOnly: true, config: { freezeStallSeconds: 2 } });
    try {
      const criu = installFailingCriu(stack);
      const image = await busyboxImage(stack);
      const job = await ctrEngine(stack).run({ id: 'slow', image, args: counting, env: enabled('slow') });
      await job.waitForLine(/^tick 2$/);
      criu.slow('checkpoint');
      await job.checkpoint({ exit: true });
      expect(imageNames(join(stack.checkpointRoot, 'slow'))).toEqual(['1', 'current']);
      await job.remove();
    } finally {
      await stack.stop();
    }
  });
});

const shares = [
  { kind: 'frozen loop mount', make: loopShare },
  { kind: 'FUSE file system whose server is stopped', make: fuseShare },
];
describe.skipIf(requireRealStack().skip).each(shares)('a share that answers nobody: a $kind', ({ make }) => {
  let stack: Stack;
  let image: string;
  let share: Share;
  let criu: FailingCriu;
  let runc: DirectRunc;

  beforeAll(async () => {
    stack = await startStack({
      rootJobsOnly: true,
      config: { freezeStallSeconds: 2, shareTimeoutSeconds: 1, lockTimeoutSeconds: 60 },
    });
    image = await busyboxImage(stack);
    share = await make(stack.dir);
    criu = installFailingCriu(stack);
    runc = await directRunc(stack);
  });
  afterAll(async () => {
    await share?.remove();
    await stack?.stop();
  });
  beforeEach(() => {
    onTestFailed(() => console.log(stack.logs()));
    onTestFinished(async () => {
      criu.behave();
      await share.answer();
    });
  });
  const run = (id: string, key: string, more = {}) =>
    ctrEngine(stack).run({
      id,
      image,
      args: counting,
      env: enabled(key, { TARDIS_CHECKPOINT_HOST_PATH: join(share.path, 'images'), ...more }),
      timeoutMs: 20_000,
    });
  const log = () => readFileSync(stack.logFile, 'utf8');
  const imagesOf = (key: string) => imageNames(join(share.path, 'images', key));

  test('creates and deletes answer, a checkpoint is refused, and no image that was not seen is superseded', async () => {
    mkdirSync(join(share.path, 'images'), { recursive: true, mode: 0o700 });
    const first = await run('first', 'job');
    await first.waitForLine(/^tick 3$/);
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    const last = ticksOf(first).length;
    await first.remove();

    await share.stop();
    const second = await run('second', 'job');
    await expectToCountOn(second);
    const asked = await second.checkpoint({ exit: true, mayFail: true });
    expect(asked.stderr).toMatch(/share\/images did not answer|fuse\/images did not answer/);
    await expectToCountOn(second);

    await share.answer();
    const refused = await second.checkpoint({ exit: true, mayFail: true });
    expect(refused.stderr).toMatch(
      /when the container began, .*did not answer.* would supersede generation 1, which it has not seen/,
    );
    await expectToCountOn(second);

    await share.stop();
    await second.remove({ timeoutMs: 20_000 });
    await share.answer();

    const third = await run('third', 'job');
    await third.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(third)[0]).toBe(last + 1);
    await share.stop();
    await third.remove({ timeoutMs: 20_000 });
    expect(log()).toContain('cannot note the end of this life: ');
    await share.answer();
    await waitFor('what asked to end', () => processes('.tardis-asks').length === 0);
  });

  test('a create fails when onUnreachable says so, and starts nothing', async () => {
    const env = { ...stack.env, TARDIS_ON_UNREACHABLE: 'fail' };
    const images = join(share.path, 'images');
    const bundle = await runc.bundle('refused', {
      args: counting,
      env: enabled('refused', { TARDIS_CHECKPOINT_HOST_PATH: images }),
    });
    await share.stop();
    const log = join(stack.dir, 'refused.log');
    const words = ['--log', log, 'create', '--bundle', bundle, 'refused'];
    const create = runc.begin(words, { env });
    expect(await create.status()).toBe(1);
    expect(readFileSync(log, 'utf8')).toMatch(
      /did not answer within 1 s .*: the container is not created, for onUnreachable says so; try again/,
    );
    expect((await runc.run(['state', 'refused'], { program: 'runc', mayFail: true })).exitCode).toBe(1);
    await share.answer();
    expect(await runc.begin(words, { env }).status()).toBe(0);
    await runc.run(['delete', '--force', 'refused']);
  });

  test('a forced delete answers while the checkpoint sleeps in the kernel, and nothing of the job is left', async () => {
    const images = join(share.path, 'images');
    const bundle = await runc.bundle('stuck', {
      args: counting,
      env: enabled('stuck', { TARDIS_CHECKPOINT_HOST_PATH: images }),
    });
    const job = runc.begin(['create', '--bundle', bundle, 'stuck']);
    expect(await job.status()).toBe(0);
    await runc.run(['start', 'stuck']);
    await job.waitForLine(/^tick 2$/);
    criu.hang('checkpoint');
    const given = ['--image-path', join(stack.dir, 'stuck-image')];
    const asked = runc.run(['checkpoint', ...given, 'stuck'], { mayFail: true, timeoutMs: 60_000 });
    await waitFor('criu to be called', () => criu.reached());
    await share.stop();
    criu.behave();
    await runc.run(['delete', '--force', 'stuck'], { timeoutMs: 10_000 });
    expect((await runc.run(['state', 'stuck'], { program: 'runc', mayFail: true })).exitCode).toBe(1);
    expect(processes('bin/tardis-guardian', 'stuck')).toEqual([]);
    await share.answer();
    expect((await asked).exitCode).not.toBe(0);
  });

  test('a restore whose share stops answering starts its job from scratch', async () => {
    const first = await run('restored-1', 'restored');
    await first.waitForLine(/^tick 3$/);
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    const last = ticksOf(first).length;
    await first.remove();
    criu.hang('restore');
    const second = run('restored-2', 'restored');
    await waitFor('criu to be called', () => criu.reached());
    await share.stop();
    criu.behave();
    const job = await second;
    // A file system that is frozen can be read: the restore succeeds there.
    await job.waitForLine(/^tick \d+$/);
    const [tick = 0] = ticksOf(job);
    expect([1, last + 1]).toContain(tick);
    await expectToCountOn(job, tick);
    await share.answer();
    await job.remove();
  });

  test('a job that is being dumped is thawed, and its container can be deleted at once', async () => {
    const job = await run('dumped', 'dumped');
    await job.waitForLine(/^tick 2$/);
    criu.hang('checkpoint');
    const asked = job.checkpoint({ exit: true, mayFail: true, timeoutMs: 60_000 });
    await waitFor('criu to be called', () => criu.reached());
    await share.stop();
    criu.behave();
    // Frozen for two seconds without progress, and for one that it takes to find out.
    await expectToCountOn(job, 1, 20_000);
    await share.answer();
    await asked;
    await expectToCountOn(job);
    expect(imagesOf('dumped')).toEqual([]);
    await job.remove();
  });
});
