import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { startFromCheckpoint } from '../support/docker-start.ts';
import type { Container } from '../support/engine.ts';
import { engineNames, engines } from '../support/engines.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

describe.skipIf(requireRealStack({ docker: true }).skip)(
  'an ordinary container on a host with Tardis',
  () => {
    let stack: Stack;
    let image: string;

    beforeAll(async () => {
      stack = await startStack({ docker: true });
      image = await busyboxImage(stack);
    });
    afterAll(() => stack?.stop());
    beforeEach(() => onTestFailed(() => console.log(stack.logs())));

    const filesOf = ({ bundle }: Container) => readdirSync(bundle).sort();
    const traces = ({ runcRoot, ociId, bundle }: Container) =>
      [
        join(stack.runDir, 'containers', runcRoot, ociId),
        join(stack.runDir, 'locks', runcRoot, ociId),
        ...['tardis.json', 'tardis-criu', 'tardis-restore'].map((name) => join(bundle, name)),
      ].filter(existsSync);
    const logged = () => (existsSync(stack.logFile) ? readFileSync(stack.logFile, 'utf8') : '');
    const keys = () => readdirSync(stack.checkpointRoot).sort();

    test.each(engineNames)(
      'should be as it is under plain runc, next to an enabled one (%s)',
      async (name) => {
        // One stream: of two that share a log, containerd 1.6 loses what comes after the end of the first.
        const script = 'exec 2>&1; echo out; env | sort; ulimit -n; ls /; cat /proc/1/cgroup | wc -l; exit 7';
        const say = async (runtime: 'runc' | 'tardis', env: Record<string, string>) => {
          const container = await engines[name](stack).run({
            id: `${name}-says-${runtime}`,
            image,
            args: ['sh', '-c', script],
            env,
            runtime,
            flags: name === 'docker' ? ['--hostname', 'same'] : [],
          });
          const status = await container.waitForExit();
          const lines = container.lines().sort();
          await container.remove();
          return { status, lines };
        };
        const beside = await engines[name](stack).run({
          id: `${name}-beside`,
          image,
          args: counting,
          env: enabled(`${name}-beside`),
        });
        await beside.waitForLine(/^tick 1$/);
        const env = { TARDIS_ENABLE: 'false', WORD: 'two words' };
        const plain = await say('runc', env);
        expect(plain.lines).toContain('WORD=two words');
        expect(await say('tardis', env)).toEqual(plain);
        expect(plain.status).toBe(7);
        await beside.remove();
      },
    );

    test.each(engineNames)(
      'should be paused, signalled, checkpointed and deleted without a trace of Tardis (%s)',
      async (name) => {
        const engine = engines[name](stack);
        const job = { image, args: counting };
        const plain = await engine.run({ id: `${name}-plain`, ...job, runtime: 'runc' });
        const ordinary = await engine.run({ id: `${name}-ordinary`, ...job });
        const before = keys();
        await ordinary.waitForLine(/^tick 2$/);
        expect(filesOf(ordinary)).toEqual(filesOf(plain));
        await ordinary.pause();
        await ordinary.resume();
        expect((await ordinary.exec(['echo', 'exec'])).stdout.trim()).toBe('exec');
        const { imagePath } = await ordinary.checkpoint();
        expect(existsSync(join(imagePath, 'inventory.img'))).toBe(true);
        const at = ticksOf(ordinary).length;
        await ordinary.waitForLine(new RegExp(`^tick ${at + 2}$`));
        expect(traces(ordinary)).toEqual([]);
        await ordinary.checkpoint({ exit: true });
        expect(await ordinary.waitForExit()).toBe(137);
        expect(ticksOf(ordinary)).toEqual(ticksOf(ordinary).map((_, i) => i + 1));
        await ordinary.remove();
        await plain.remove();
        expect(traces(ordinary)).toEqual([]);
        expect(logged()).not.toContain(ordinary.ociId);
        expect(keys()).toEqual(before);
      },
    );

    test("should be restored by containerd's own checkpoint and restore", async () => {
      const { ctr } = stack;
      // Under `ctr containers restore` nobody reads its output.
      const script =
        'i=0; while :; do i=$((i+1)); echo $i >/dev/shm/new; mv /dev/shm/new /dev/shm/tick; sleep 0.1; done';
      const first = await engines.ctr(stack).run({ id: 'own', image, args: ['sh', '-c', script] });
      const tickIn = (pid: number) => Number(readFileSync(`/proc/${pid}/root/dev/shm/tick`, 'utf8'));
      const pid = await first.pid();
      await waitFor('a few ticks', () => tickIn(pid) >= 5);
      await ctr(['containers', 'checkpoint', '--task', '--rw', 'own', 'tardis.test/own:1']);
      const last = tickIn(pid);
      await first.remove();

      await ctr(['containers', 'restore', '--live', '--rw', 'own-2', 'tardis.test/own:1']);
      const restored = await waitFor('the restored task', async () => {
        const row = (await ctr(['tasks', 'list'])).stdout.split('\n').map((line) => line.split(/\s+/));
        const [, found, status] = row.find(([id]) => id === 'own-2') ?? [];
        return status === 'RUNNING' && Number(found);
      });
      const at = tickIn(restored);
      expect(at).toBeGreaterThanOrEqual(5);
      await waitFor('it to count on', () => tickIn(restored) > Math.max(at, last));
      const bundle = join(first.bundle, '../own-2');
      expect(JSON.parse(readFileSync(join(bundle, 'options.json'), 'utf8'))).toMatchObject({
        binary_name: stack.runtime,
      });
      expect(traces({ ...first, ociId: 'own-2', bundle })).toEqual([]);
      expect(logged()).not.toMatch(/"id":"own(-2)?"/);
      await ctr(['tasks', 'delete', '--force', 'own-2'], { mayFail: true });
      await ctr(['containers', 'delete', 'own-2']);
    });

    test('should be restored by Docker from its own checkpoint', async () => {
      const { docker } = stack;
      const first = await engines.docker(stack).run({ id: 'docker-own', image, args: counting });
      await first.waitForLine(/^tick 3$/);
      await docker(['checkpoint', 'create', 'docker-own', 'c1']);
      await first.waitForExit();
      const last = ticksOf(first).length;
      await startFromCheckpoint(stack, 'docker-own', 'c1');
      await first.waitForLine(new RegExp(`^tick ${last + 2}$`));
      expect(ticksOf(first)).toEqual(ticksOf(first).map((_, i) => i + 1));
      expect(traces(first)).toEqual([]);
      expect(logged()).not.toContain(first.ociId);
      await first.remove();
    });
  },
);
