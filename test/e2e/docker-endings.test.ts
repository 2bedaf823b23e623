import { mkdtempSync } from 'node:fs';
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
import { dockerEngine } from '../support/engine-docker.ts';
import { type Gate, type GatedStack, startGatedStack } from '../support/gate.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import type { Stack } from '../support/stack.ts';

describe.skipIf(requireRealStack({ docker: true }).skip)('how Docker ends a job, and starts it again', () => {
  let gated: GatedStack;
  let gate: Gate;
  let stack: Stack;
  let image: string;

  beforeAll(async () => {
    gated = await startGatedStack({ rootJobsOnly: true });
    ({ gate, stack } = gated);
    image = await busyboxImage(stack);
  });
  afterAll(() => gated?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  test('a job that `docker stop` ends while it is checkpointed goes on in its next container', async () => {
    const args = ['sh', '-c', `trap 'echo stopped; exit 0' TERM; ${counting[2]}`];
    const job = { image, args, env: enabled('stopped') };
    const first = await dockerEngine(stack).run({ id: 'stopped-1', ...job });
    await first.waitForLine(/^tick 3$/);
    // The engine has paused it by then.
    gate.stopAt('checkpoint');
    onTestFinished(() => gate.open());
    const asked = first.checkpoint({ exit: true, mayFail: true });
    await gate.stopped('checkpoint');
    const stopped = stack.docker(['stop', '--time', '60', first.id]);
    // The shim sends no signal before its checkpoint has been answered (containerd, pkg/process/init.go).
    gate.open();
    await Promise.all([asked, stopped]);
    const last = ticksOf(first).length;
    expect(first.lines()).not.toContain('stopped');
    await first.remove();
    const second = await dockerEngine(stack).run({ id: 'stopped-2', ...job });
    await second.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(second)[0]).toBe(last + 1);
    expect(second.lines()).not.toContain('stopped');
    await second.remove();
  });

  test('a container that its restart policy starts again carries on from its image, with the files that belong to it', async () => {
    // It keeps count in a file, fails at a number, and does not when it is there again.
    const script =
      'i=0; while :; do i=$((i+1)); echo $i >/count; echo tick $i; [ $i -ne 12 ] || [ -e /vol/again ] || { touch /vol/again; exit 7; }; [ $(cat /count) -eq $i ] || echo broken; sleep 0.1; done';
    const volume = mkdtempSync(join(stack.dir, 'volume-'));
    const job = await dockerEngine(stack).run({
      ...{ id: 'restarted', image, args: ['sh', '-c', script] },
      env: enabled('restarted', { TARDIS_RESUME_AFTER: 'always' }),
      binds: [{ source: volume, destination: '/vol' }],
      flags: ['--restart', 'on-failure'],
    });
    await job.waitForLine(/^tick 4$/);
    await job.checkpoint();
    await job.waitForLine(/^tick 14$/, { timeoutMs: 60_000 });
    const ticks = ticksOf(job);
    const again = ticks.indexOf(12) + 1;
    expect(ticks[again], stack.logs()).toBeGreaterThan(1);
    expect(ticks[again]).toBeLessThanOrEqual(12);
    expect(ticks.slice(again)).toEqual(ticks.slice(again).map((_, i) => (ticks[again] ?? 0) + i));
    expect(job.lines()).not.toContain('broken');
    await job.remove();
  });
});
