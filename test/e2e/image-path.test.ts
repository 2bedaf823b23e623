import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { type Call, type DirectRunc, directRunc } from '../support/direct-runc.ts';
import { startFromCheckpoint } from '../support/docker-start.ts';
import type { Container } from '../support/engine.ts';
import { engines } from '../support/engines.ts';
import { busyboxImage, debianImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { fixturesDir } from '../support/paths.ts';
import { requireRealStack } from '../support/requires.ts';
import { run } from '../support/run.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

describe.skipIf(requireRealStack({ docker: true }).skip)("the caller's own image path", () => {
  let stack: Stack;
  let busybox: string;
  let debian: string;
  let runc: DirectRunc;

  beforeAll(async () => {
    stack = await startStack({ docker: true, tmpfs: { elsewhere: '64m' } });
    [busybox, debian] = [await busyboxImage(stack), await debianImage(stack)];
    runc = await directRunc(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const ticks = (first: number, length: number) => Array.from({ length }, (_, i) => `tick ${first + i}`);
  /** Ends a container with a checkpoint, but keeps its stopped task, and so its files, for another runtime. */
  const checkpointed = async (container: Container) => {
    const { imagePath } = await container.checkpoint({ exit: true });
    await waitFor('the container to stop', async () => (await container.status()) === 'stopped');
    return imagePath;
  };
  /** A bundle with the configuration of a stopped container, around that one's root file system. */
  const bundleLike = (container: Container, rootfs = join(container.bundle, 'rootfs')) => {
    const bundle = join(stack.dir, `${container.id}-bundle`);
    mkdirSync(bundle);
    const config = JSON.parse(readFileSync(join(container.bundle, 'config.json'), 'utf8'));
    config.root.path = rootfs;
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(config));
    return bundle;
  };
  const restore = (id: string, imagePath: string, bundle: string, flags: string[], how: object): Call =>
    runc.begin(['restore', '--detach', ...flags, '--image-path', imagePath, '--bundle', bundle, id], how);
  const end = (id: string) => runc.run(['delete', '--force', id], { program: 'runc' });

  test('should hold an image that plain runc carries on in a bundle of its own', async () => {
    const script = `echo kept >/file; ${counting.at(-1)?.replace('echo', 'read -r word </file; echo')}`;
    const args = ['sh', '-c', script];
    const container = await engines
      .ctr(stack)
      .run({ id: 'plain', image: busybox, args, env: enabled('plain') });
    await container.waitForLine(/^tick 3$/);
    const imagePath = await checkpointed(container);
    const last = ticksOf(container).length;
    const bundle = bundleLike(container, 'rootfs');
    await run('cp', ['--archive', join(container.bundle, 'rootfs'), bundle]);
    await container.remove();

    const restored = restore('plain-2', imagePath, bundle, [], { program: 'runc' });
    expect(await restored.status()).toBe(0);
    await restored.waitForLine(new RegExp(`^tick ${last + 3}$`));
    expect(restored.lines()).toEqual(ticks(last + 1, restored.lines().length));
    expect((await runc.state('plain-2')).status).toBe('running');
    await end('plain-2');
  });

  test('should hold links on the same file system, and copies on another', async () => {
    const spec = { id: 'links', image: busybox, args: counting, env: enabled('links') };
    const container = await engines.ctr(stack).run(spec);
    await container.waitForLine(/^tick 2$/);
    const committed = join(stack.checkpointRoot, 'links/current/checkpoint');
    for (const { place, links } of [
      { place: join(stack.dir, 'links-here'), links: true },
      { place: join(stack.dir, 'elsewhere/links'), links: false },
    ]) {
      const { imagePath } = await container.checkpoint({ imagePath: place });
      const names = readdirSync(committed).sort();
      expect(names).toContain('inventory.img');
      expect(readdirSync(imagePath).sort()).toEqual(names);
      for (const name of names) {
        const [given, kept] = [statSync(join(imagePath, name)), statSync(join(committed, name))];
        const linked = { nlink: given.nlink, same: given.ino === kept.ino && given.dev === kept.dev };
        expect(linked).toEqual(links ? { nlink: 2, same: true } : { nlink: 1, same: false });
        const bytes = readFileSync(join(imagePath, name));
        expect(bytes.equals(readFileSync(join(committed, name)))).toBe(true);
      }
    }
    await container.remove();
  });

  test.each(['runc', 'tardis'] as const)(
    'should be one that docker start --checkpoint carries the same container on from, twice, with %s',
    async (runtime) => {
      const id = `same-${runtime}`;
      const spec = { id, image: busybox, args: counting, runtime, env: enabled(id) };
      const container = await engines.docker(stack).run(spec);
      let seen = 0;
      for (const checkpoint of ['first', 'second']) {
        await container.waitForLine(new RegExp(`^tick ${seen + 3}$`));
        await stack.docker(['checkpoint', 'create', id, checkpoint]);
        await container.waitForExit();
        seen = container.lines().length;
        await startFromCheckpoint(stack, id, checkpoint);
      }
      await container.waitForLine(new RegExp(`^tick ${seen + 3}$`));
      expect(container.lines()).toEqual(ticks(1, container.lines().length));
      await container.remove();
    },
  );

  test.each(['runc', 'tardis'] as const)(
    'should be one that ctr carries another container on from, with %s',
    async (runtime) => {
      // `ctr containers restore` leaves its container alone at once: only the job's memory file tells how it goes on.
      const args = [
        'sh',
        '-c',
        'i=0; while :; do i=$((i+1)); echo tick $i; echo $i >/dev/shm/now; sleep 0.1; done',
      ];
      const [id, next, reference] = [
        `own-${runtime}`,
        `next-${runtime}`,
        `tardis.test/${runtime}:checkpoint`,
      ];
      const spec = { id, image: busybox, args, runtime, env: enabled(id) };
      const container = await engines.ctr(stack).run(spec);
      await container.waitForLine(/^tick 3$/);
      await stack.ctr(['containers', 'checkpoint', '--rw', '--image', '--task', id, reference]);
      const seen = container.lines().length;
      await container.waitForLine(new RegExp(`^tick ${seen + 2}$`));
      await container.remove();

      await stack.ctr(['containers', 'restore', '--rw', '--live', next, reference]);
      const listed = (await stack.ctr(['tasks', 'list'])).stdout;
      const pid = new RegExp(`^${next}\\s+(\\d+)\\s+RUNNING`, 'm').exec(listed)?.[1];
      const now = () => Number(readFileSync(`/proc/${pid}/root/dev/shm/now`, 'utf8'));
      const found = now();
      expect(found).toBeGreaterThanOrEqual(3);
      await waitFor('the job to count on', () => now() > Math.max(found, seen) + 3);
      await stack.ctr(['tasks', 'delete', '--force', next]);
      await stack.ctr(['containers', 'delete', next]);
    },
  );

  const jobs = join(fixturesDir, 'jobs');
  const runJob = async (id: string, file: string, env = {}) => {
    const container = await engines.ctr(stack).run({
      ...{ id, image: debian, args: ['python3', `/jobs/${file}`], env: enabled(id, env) },
      binds: [{ source: jobs, destination: '/jobs', readOnly: true }],
    });
    await container.waitForLine(/^tick 3\b/);
    return container;
  };
  // Plain runc is to be told what Tardis knows by itself: by a flag of runc's, or in CRIU's own configuration.
  test('should carry a holder of locks on where runc is told of locks, and without a word with Tardis', async () => {
    const container = await runJob('locks', 'locks_job.py');
    const [imagePath, bundle] = [await checkpointed(container), bundleLike(container)];
    const last = container.lines().length;
    const untold = restore('locks-2', imagePath, bundle, [], { program: 'runc' });
    await untold.waitForLine(/^wrong: free locks 3$/);
    await end('locks-2');
    for (const [id, flags, how] of [
      ['locks-3', ['--file-locks'], { program: 'runc' }],
      ['locks-4', [], {}],
    ] as const) {
      const restored = restore(id, imagePath, bundle, [...flags], how);
      expect(await restored.status()).toBe(0);
      await restored.waitForLine(new RegExp(`^tick ${last + 3}$`));
      expect(restored.lines()).toEqual(ticks(last + 1, restored.lines().length));
      await end(id);
    }
    await container.remove();
  });

  test('should carry a job with connections on where CRIU is told to close them, and without a word with Tardis', async () => {
    const container = await runJob('connected', 'network_job.py', { PORT: '7000' });
    const [imagePath, bundle] = [await checkpointed(container), bundleLike(container)];
    const last = container.lines().length;
    const untold = restore('connected-2', imagePath, bundle, [], { program: 'runc' });
    expect(await untold.status()).toBe(1);
    const HOME = join(stack.dir, 'told');
    mkdirSync(join(HOME, '.criu'), { recursive: true });
    writeFileSync(join(HOME, '.criu/default.conf'), 'tcp-close\n');
    for (const [id, how] of [
      ['connected-3', { program: 'runc', env: { HOME } }],
      ['connected-4', {}],
    ] as const) {
      const restored = restore(id, imagePath, bundle, [], how);
      expect(await restored.status()).toBe(0);
      await restored.waitForLine(new RegExp(`^tick ${last + 1} `));
      await end(id);
    }
    await container.remove();
  });
});
