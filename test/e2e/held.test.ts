import { existsSync, readFileSync } from 'node:fs';
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
import { engineNames, engines } from '../support/engines.ts';
import { type Gate, type GatedStack, startGatedStack } from '../support/gate.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { run } from '../support/run.ts';
import type { Stack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

describe.skipIf(requireRealStack({ docker: true }).skip)(
  'a restored job that is held until its start',
  () => {
    let gated: GatedStack;
    let gate: Gate;
    let stack: Stack;
    let image: string;

    beforeAll(async () => {
      gated = await startGatedStack();
      ({ gate, stack } = gated);
      image = await busyboxImage(stack);
    });
    afterAll(() => gated?.stop());
    beforeEach(() => onTestFailed(() => console.log(stack.logs())));

    test.each(engineNames)(
      'should be reported as ended, and its start succeed, when it is gone before (%s)',
      async (name) => {
        const key = `gone-${name}`;
        const job = { image, args: counting, env: enabled(key) };
        const first = await engines[name](stack).run({ id: `${key}-1`, ...job });
        await first.waitForLine(/^tick 2$/);
        await first.checkpoint({ exit: true });
        await first.waitForExit();
        const last = ticksOf(first).length;
        await first.remove();

        gate.stopAt('start');
        onTestFinished(() => gate.open());
        const starting = engines[name](stack).run({ id: `${key}-2`, ...job });
        await gate.stopped('start');
        const { id, pid } = await onlyContainerOf(first.runcRoot);
        await run('runc', ['--root', first.runcRoot, 'kill', id, 'KILL']);
        await waitFor('the job to be reaped', () => !existsSync(`/proc/${pid}`));
        gate.open();
        const second = await starting;
        expect(await second.waitForExit()).toBe(137);
        expect(ticksOf(second)).toEqual([]);
        expect(readFileSync(stack.logFile, 'utf8')).toMatch(
          new RegExp(`"id":"${second.ociId}","command":"start".*had ended before its start`),
        );
        await second.remove();
        expect(existsSync(join(stack.runDir, 'containers', second.runcRoot, second.ociId))).toBe(false);

        // What was dumped is not lost with it.
        const third = await engines[name](stack).run({ id: `${key}-3`, ...job });
        await third.waitForLine(/^tick \d+$/);
        expect(ticksOf(third)[0]).toBe(last + 1);
        await third.remove();
      },
    );

    async function onlyContainerOf(root: string): Promise<{ id: string; pid: number }> {
      const { stdout } = await run('runc', ['--root', root, 'list', '--format', 'json']);
      const all = JSON.parse(stdout) as { id: string; pid: number }[];
      expect(all).toHaveLength(1);
      return all[0] as { id: string; pid: number };
    }
  },
);
