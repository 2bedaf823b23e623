import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { CrashJob } from '../support/crash-job.ts';
import { type DirectRunc, directRunc } from '../support/direct-runc.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

/** docs/decisions/0013-orphans-hold-the-lock.md, where the crash matrix does not look. */
describe.skipIf(requireRealStack().skip)("a container's lock", () => {
  let stack: Stack;
  let runc: DirectRunc;

  beforeAll(async () => {
    stack = await startStack({ config: { faultInjection: true }, rootJobsOnly: true });
    runc = await directRunc(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  /** The processes that have a file in the run directory open, or one below a directory there. */
  const holdersIn = (...place: string[]): string[] =>
    readdirSync('/proc').filter((pid) =>
      filesOf(pid).some((file) => `${file}/`.startsWith(`${join(stack.runDir, ...place)}/`)),
    );
  /** The processes that have the lock of a container open. */
  const holdersOf = (id: string): string[] => holdersIn('locks', runc.root, id);

  function filesOf(pid: string): string[] {
    try {
      return readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    } catch {
      return [];
    }
  }

  test('should be kept by nobody who stays: no init, no restored task', async () => {
    const first = await CrashJob.make(stack, runc, 'stays');
    await first.begin('create').status();
    expect(holdersOf(first.id)).toEqual([]);
    await first.start();
    expect(holdersOf(first.id)).toEqual([]);
    await first.countsOn(3);
    expect(await first.checkpoint([])).toMatchObject({ exitCode: 0 });
    await first.run(['delete', '--force']);

    const next = await CrashJob.make(stack, runc, 'stays-next', { imagesOf: 'stays' });
    await next.begin('create').status();
    expect(holdersOf(next.id)).toEqual([]);
    await next.start();
    await next.countsOn();
    expect(next.ticks[0]).toBe(first.ticks.length + 1);
    expect(holdersOf(next.id)).toEqual([]);
    await next.run(['delete', '--force']);
  });

  test("should not be kept by a hook's daemon, nor should that be ended for it", async () => {
    const job = await CrashJob.make(stack, runc, 'hooked');
    const file = join(job.bundle, 'config.json');
    const daemon = join(stack.dir, 'daemon');
    writeFileSync(daemon, '');
    const script = `tail -f ${daemon} >/dev/null 2>&1 </dev/null & echo $! >${daemon}.pid`;
    const hook = { path: '/bin/sh', args: ['sh', '-c', script], env: [`PATH=${stack.env.PATH}`] };
    const config = JSON.parse(readFileSync(file, 'utf8'));
    writeFileSync(file, JSON.stringify({ ...config, hooks: { createRuntime: [hook] } }));
    await job.begin('create').status();
    expect(holdersOf(job.id)).toEqual([]);
    await job.start();
    await job.countsOn();
    await job.run(['delete', '--force']);
    expect(await job.leftovers()).toEqual([]);
    const pid = Number(readFileSync(`${daemon}.pid`, 'utf8'));
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain(daemon);
  });

  test('keeps no signal waiting for an orphan, which the guardian ends with its slot, and no forced delete', async () => {
    const job = await CrashJob.make(stack, runc, 'signalled');
    await job.begin('create').status();
    await job.start();
    await job.countsOn();
    const asked = job.checkpoint([], { TARDIS_FAULT: 'at:dumpMemory:hang' });
    await waitFor('runc to hang', () => job.hanging());
    for (const pid of job.wrappers()) process.kill(pid, 'SIGKILL');
    await asked;
    expect(await job.run(['kill'])).toMatchObject({ exitCode: 0 });
    await waitFor('the orphan to end', () => !job.hanging());
    await waitFor('its slot to be free', () => holdersIn('slots', 'dumps').length === 0);
    await waitFor('the guardian to end', () => holdersOf(job.id).length === 0);
    await job.countsOn();
    expect(await job.run(['delete', '--force'])).toMatchObject({ exitCode: 0 });
    expect(await job.leftovers()).toEqual([]);
    expect(holdersIn('slots')).toEqual([]);
  });

  test('should not be taken from a wrapper that lives', async () => {
    const job = await CrashJob.make(stack, runc, 'alive');
    await job.begin('create').status();
    await job.start();
    await job.countsOn();
    const asked = job.checkpoint(['--leave-running'], { TARDIS_FAULT: 'at:dumpMemory:hang' });
    const pid = await waitFor('runc to hang', () => job.hanging());
    const second = await job.checkpoint([], { TARDIS_LOCK_TIMEOUT_SECONDS: '1' });
    expect(second).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('for 1 s') });
    process.kill(pid, 'SIGCONT');
    expect(await asked).toMatchObject({ exitCode: 0 });
    await job.countsOn();
    await job.run(['delete', '--force']);
  });
});
