import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { CrashJob } from '../support/crash-job.ts';
import { type DirectRunc, directRunc } from '../support/direct-runc.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { imageNames } from '../support/image-names.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

/** Counts, and ends at SIGTERM as a job does that is asked to stop. */
const stopping = ['sh', '-c', `trap 'echo stopped; exit 0' TERM; ${counting[2]}`];
/** Counts to a number, and has done its work then. */
const countingTo = (last: number) => [
  'sh',
  '-c',
  `i=0; while [ $i -lt ${last} ]; do i=$((i+1)); echo tick $i; sleep 0.1; done`,
];

describe.skipIf(requireRealStack().skip)('how a job ends, and who carries it on', () => {
  let stack: Stack;
  let runc: DirectRunc;
  let image: string;

  beforeAll(async () => {
    stack = await startStack({ rootJobsOnly: true });
    runc = await directRunc(stack);
    image = await busyboxImage(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const run = (id: string, key: string, args = counting) =>
    ctrEngine(stack).run({ id, image, args, env: enabled(key) });
  const imagesOf = (key: string) => imageNames(join(stack.checkpointRoot, key));

  test('a job that has ended and is deleted with a signal, as by `ctr tasks rm -f`, does not run again', async () => {
    const first = await run('done-1', 'done', countingTo(12));
    await first.waitForLine(/^tick 3$/);
    await first.checkpoint();
    await waitFor('the job to end', async () => (await first.status()) === 'stopped');
    // The shim sends SIGKILL to all that is left before it deletes.
    await first.remove();
    const second = await run('done-2', 'done', countingTo(12));
    await second.waitForLine(/^tick 2$/);
    expect(ticksOf(second)[0]).toBe(1);
    await second.remove();
  });

  test('a stop signal that comes while the job is frozen for its last checkpoint does not reach its next life', async () => {
    const job = await CrashJob.make(stack, runc, 'stopped', { args: stopping });
    await job.begin('create').status();
    await job.start();
    await job.countsOn(3);
    await job.run(['pause']);
    await job.run(['kill']);
    expect(await job.checkpoint([])).toMatchObject({ exitCode: 0 });
    await job.run(['delete', '--force']);

    const next = await CrashJob.make(stack, runc, 'stopped-next', { args: stopping, imagesOf: 'stopped' });
    await next.begin('create').status();
    await next.start();
    await next.countsOn(3);
    expect(next.ticks[0]).toBe(job.ticks.length + 1);
    // One that is meant for this life reaches it.
    await next.run(['kill']);
    await waitFor('the job to stop', () => next.call?.output().includes('stopped'));
    await next.run(['delete', '--force']);
  });

  test('a predecessor that is deleted after its successor has begun takes nothing from it', async () => {
    const first = await run('dead', 'succession');
    await first.waitForLine(/^tick 2$/);
    await first.kill('SIGKILL');
    await waitFor('the job to be dead', async () => (await first.status()) === 'stopped');
    const second = await run('successor', 'succession');
    await second.waitForLine(/^tick 2$/);
    await first.remove();
    await second.checkpoint({ exit: true });
    await second.waitForExit();
    const last = ticksOf(second).length;
    await second.remove();
    const third = await run('third', 'succession');
    await third.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(third)[0]).toBe(last + 1);
    await third.remove();
  });

  test('a stranger with the job’s key does not take the job up, and its end ends nothing', async () => {
    const first = await run('owner-1', 'shared-key');
    await first.waitForLine(/^tick 3$/);
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    const last = ticksOf(first).length;
    await first.remove();

    const stranger = await run('stranger', 'shared-key', countingTo(5));
    await stranger.waitForLine(/^tick 2$/);
    const asked = await stranger.checkpoint({ mayFail: true });
    expect(asked.stderr).toMatch(/generation 1 of shared-key is of another container/);
    await waitFor('the stranger to end', async () => (await stranger.status()) === 'stopped');
    await stranger.remove();
    expect(imagesOf('shared-key')).toEqual(['1', 'current']);

    const second = await run('owner-2', 'shared-key');
    await second.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(second)[0]).toBe(last + 1);
    await second.remove();
    expect(readFileSync(stack.logFile, 'utf8')).toContain('give it another TARDIS_CHECKPOINT_KEY');
  });

  /** A counting job whose configuration is changed before it is created and started. */
  async function started(id: string, change: (config: Config) => void, args = counting): Promise<CrashJob> {
    const job = await CrashJob.make(stack, runc, id, { args });
    const file = join(job.bundle, 'config.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as Config;
    change(config);
    writeFileSync(file, JSON.stringify(config));
    expect(await job.begin('create').status(), job.call?.output()).toBe(0);
    await job.start();
    await job.countsOn(2);
    return job;
  }

  test('a restored job that waits for its start is deleted without --force, as a created container is', async () => {
    const job = await started('held', () => {});
    expect(await job.checkpoint([])).toMatchObject({ exitCode: 0 });
    await job.run(['delete', '--force']);
    const next = await CrashJob.make(stack, runc, 'held-next', { imagesOf: 'held' });
    await next.begin('create').status();
    expect(await next.run(['delete'])).toMatchObject({ exitCode: 0 });
    expect(await next.leftovers()).toEqual([]);
    // It is not lost with that container.
    const third = await CrashJob.make(stack, runc, 'held-third', { imagesOf: 'held' });
    await third.begin('create').status();
    await third.start();
    await third.countsOn(2);
    expect(third.ticks[0]).toBe(job.ticks.length + 1);
    await third.run(['delete', '--force']);
  });

  test('a job in a user namespace is not ended for an image that could not be restored', async () => {
    const job = await started('mapped', ({ linux }) => {
      linux.namespaces.push({ type: 'user' });
      linux.uidMappings = [{ containerID: 0, hostID: 0, size: 65_536 }];
      linux.gidMappings = linux.uidMappings;
    });
    const { exitCode, stderr } = await job.checkpoint([]);
    expect([exitCode, stderr]).toEqual([1, expect.stringMatching(/^the container has a user namespace /)]);
    await job.countsOn(3);
    await job.run(['delete', '--force']);
  });

  test('a job is not ended for an image that lacks a file: open, unlinked, and kept by another name on a volume', async () => {
    const volume = join(stack.dir, 'volume');
    mkdirSync(volume);
    const args = [
      'sh',
      '-c',
      `exec 3>/volume/log; ln /volume/log /volume/log.1; rm /volume/log; ${counting[2]}`,
    ];
    const mount = ({ mounts }: Config) =>
      mounts.push({ destination: '/volume', type: 'bind', source: volume, options: ['bind', 'rw'] });
    const job = await started('rotated', mount, args);
    const { exitCode, stderr } = await job.checkpoint([]);
    expect([exitCode, stderr]).toEqual([
      1,
      expect.stringMatching(/\/volume\/log is open and was unlinked while another name keeps it/),
    ]);
    await job.countsOn(3);
    expect(readdirSync(volume)).toEqual(['log.1']);
    await job.run(['delete', '--force']);
  });
});

/** What of a configuration these tests change. */
interface Config {
  mounts: object[];
  linux: { namespaces: { type: string }[]; uidMappings?: object[]; gidMappings?: object[] };
}
