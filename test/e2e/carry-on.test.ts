import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import type { Container } from '../support/engine.ts';
import { engineNames, engines } from '../support/engines.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';

describe.skipIf(requireRealStack({ docker: true }).skip)('a job that is carried on', () => {
  let stack: Stack;
  let image: string;

  beforeAll(async () => {
    stack = await startStack({ docker: true });
    image = await busyboxImage(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const stateIn = (bundle: string) =>
    JSON.parse(readFileSync(join(bundle, 'tardis.json'), 'utf8')).snapshot.value;
  const from = (first: number, length: number) => Array.from({ length }, (_, i) => first + i);

  test('should carry a job on in the very container that was checkpointed, when Docker starts it again', async () => {
    const args = [
      'sh',
      '-c',
      `i=0; while :; do i=$((i+1)); echo $i >/n; rm -f /etc/passwd; echo tick $i; sleep 0.1; done`,
    ];
    const container = await engines
      .docker(stack)
      .run({ id: 'docker-again', image, args, env: { TARDIS_ENABLE: '1' } });
    for (let life = 1; life <= 3; life++) {
      const before = ticksOf(container).length;
      await container.waitForLine(new RegExp(`^tick ${before + 3}$`));
      await container.checkpoint({ exit: true });
      await container.waitForExit();
      await stack.docker(['start', container.id]);
    }
    const before = ticksOf(container).length;
    await container.waitForLine(new RegExp(`^tick ${before + 3}$`));
    expect(ticksOf(container)).toEqual(from(1, ticksOf(container).length));
    await container.remove();
  });

  const isVerified = ({ ociId }: Container): boolean =>
    readFileSync(stack.logFile, 'utf8')
      .split('\n')
      .some((line) => line.includes(`"id":"${ociId}"`) && line.includes('restored once beside the job'));

  describe.each(engineNames)('%s', (name) => {
    const verified = { TARDIS_VERIFY_BY_RESTORE: '1' };
    test.each([
      { title: 'a job', spec: {}, more: {} },
      { title: 'a verified job with a terminal', spec: { tty: true }, more: verified },
      { title: 'a verified job that is not root', spec: { user: '1000:1000' }, more: verified },
      { title: "a job in the host's network", spec: { network: 'host' }, more: {} },
    ])('should carry $title on in a new container, at the next number', async ({ title, spec, more }) => {
      const key = `${name}-${title.replaceAll(/\W+/g, '-')}`;
      const job = { image, args: counting, env: enabled(key, more), ...spec };
      const first = await engines[name](stack).run({ id: `${key}-1`, ...job });
      await first.waitForLine(/^tick 3$/);
      await first.checkpoint({ exit: true });
      expect(await first.waitForExit()).toBe(137);
      expect(isVerified(first)).toBe(more === verified);
      const last = ticksOf(first).at(-1) as number;
      await first.remove();

      const second = await engines[name](stack).run({ id: `${key}-2`, ...job });
      await second.waitForLine(new RegExp(`^tick ${last + 3}$`));
      expect(ticksOf(second).slice(0, 3)).toEqual(from(last + 1, 3));
      expect(await second.status()).toBe('running');
      expect(stateIn(second.bundle)).toEqual({ alive: 'running' });
      await second.remove();
    });

    test('should let the old container go on after a checkpoint that leaves it running, and resume from there', async () => {
      const key = `${name}-leave`;
      const job = { image, args: counting, env: enabled(key) };
      const first = await engines[name](stack).run({ id: `${key}-1`, ...job });
      await first.waitForLine(/^tick 3$/);
      const before = ticksOf(first).length;
      await first.checkpoint();
      const after = ticksOf(first).length;
      await first.waitForLine(new RegExp(`^tick ${after + 10}$`));
      expect(ticksOf(first)).toEqual(from(1, ticksOf(first).length));
      expect(stateIn(first.bundle)).toEqual({ alive: 'running' });
      await first.remove();

      const second = await engines[name](stack).run({ id: `${key}-2`, ...job });
      await second.waitForLine(/^tick \d+$/);
      const [resumedAt] = ticksOf(second) as [number];
      expect(resumedAt).toBeGreaterThan(before);
      expect(resumedAt).toBeLessThanOrEqual(after + 1);
      await second.remove();
    });

    test('should carry memory and files on three times over', async () => {
      const key = `${name}-rounds`;
      const script = `
        i=0
        while :; do
          i=$((i+1))
          mkdir -p /work/$i && echo $i >/work/$i/file && rm -rf /work/$((i-3))
          echo $i >>/log
          chmod 640 /log
          [ "$(wc -l </log)" = $i ] || echo "the log has $(wc -l </log) lines at $i"
          [ -e /work/$((i-3)) ] && echo "/work/$((i-3)) came back"
          echo tick $i
          sleep 0.1
        done`;
      const job = { image, args: ['sh', '-c', script], env: enabled(key) };
      let last = 0;
      for (let round = 1; round <= 4; round++) {
        const container = await engines[name](stack).run({ id: `${key}-${round}`, ...job });
        await container.waitForLine(new RegExp(`^tick ${last + 4}$`));
        if (round < 4) await container.checkpoint({ exit: true });
        if (round < 4) await container.waitForExit();
        const ticks = ticksOf(container);
        expect(container.lines().filter((line) => !line.startsWith('tick '))).toEqual([]);
        expect(ticks).toEqual(from(last + 1, ticks.length));
        last += ticks.length;
        await container.remove();
      }
    });

    test('should follow a container that is paused and resumed', async () => {
      const key = `${name}-paused`;
      const container = await engines[name](stack).run({ id: key, image, args: counting, env: enabled(key) });
      await container.waitForLine(/^tick 2$/);
      await container.pause();
      expect(stateIn(container.bundle)).toEqual({ alive: 'paused' });
      const at = ticksOf(container).length;
      expect(await container.status()).toBe('paused');
      await container.resume();
      await container.waitForLine(new RegExp(`^tick ${at + 2}$`));
      expect(stateIn(container.bundle)).toEqual({ alive: 'running' });
      await container.remove();
    });

    test('should leave nothing of a deleted container behind', async () => {
      const key = `${name}-traces`;
      const container = await engines[name](stack).run({ id: key, image, args: counting, env: enabled(key) });
      const entry = join(stack.runDir, 'containers', container.runcRoot, container.ociId);
      const lock = join(stack.runDir, 'locks', container.runcRoot, container.ociId);
      expect(existsSync(join(entry, 'tardis.json'))).toBe(true);
      await container.remove();
      expect([entry, lock, container.bundle].filter((path) => existsSync(path))).toEqual([]);
    });
  });
});
