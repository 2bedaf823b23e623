import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import type { Engine } from '../support/engine.ts';
import { engines } from '../support/engines.ts';
import { debianImage } from '../support/images.ts';
import { enabled, ticksOf } from '../support/jobs.ts';
import { fixturesDir } from '../support/paths.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';

/**
 * Each job looks at itself in every step and prints `tick N` only while all is as it should be, else `wrong: ...`.
 */
const jobs: { title: string; file: string; user?: string; engine: Engine['name'] }[] = [
  { title: 'a numpy computation', file: 'numpy_job.py', engine: 'ctr' },
  { title: 'a numpy computation of user 1000', file: 'numpy_job.py', user: '1000:1000', engine: 'docker' },
  { title: 'a Redis server on loopback', file: 'redis_job.sh', engine: 'ctr' },
  { title: 'a Redis server on loopback', file: 'redis_job.sh', engine: 'docker' },
  { title: 'PostgreSQL under its own user', file: 'postgres_job.sh', engine: 'ctr' },
  { title: 'PostgreSQL under its own user', file: 'postgres_job.sh', engine: 'docker' },
  { title: 'nginx with workers of another user', file: 'nginx_job.sh', engine: 'ctr' },
  { title: 'SQLite in WAL mode', file: 'sqlite_job.py', engine: 'ctr' },
  { title: 'a holder of flock and lockf', file: 'locks_job.py', engine: 'ctr' },
  { title: 'files on tmpfs, deleted, and unlinked', file: 'files_job.py', engine: 'ctr' },
  { title: 'files on tmpfs, deleted, and unlinked', file: 'files_job.py', engine: 'docker' },
  { title: 'a program that is being started', file: 'spawn_job.py', engine: 'ctr' },
  { title: 'processes, threads, and a stopped child', file: 'processes_job.py', engine: 'ctr' },
];

describe.skipIf(requireRealStack({ docker: true }).skip)('real workloads', () => {
  let stack: Stack;
  let image: string;

  beforeAll(async () => {
    stack = await startStack({ docker: true });
    image = await debianImage(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  test.each(jobs)('should carry $title on, twice, under $engine', async ({ file, user, engine }) => {
    const key = `${engine}-${file.replace(/\W/, '-')}-${user ? 'user' : 'root'}`;
    const source = join(fixturesDir, 'jobs');
    const interpreter = file.endsWith('.py') ? 'python3' : 'sh';
    let last = 0;
    for (let life = 1; life <= 3; life++) {
      const container = await engines[engine](stack).run({
        id: `${key}-${life}`,
        image,
        args: [interpreter, `/jobs/${file}`],
        env: enabled(key),
        binds: [{ source, destination: '/jobs', readOnly: true }],
        ...(user ? { user } : {}),
      });
      await container.waitForLine(new RegExp(`^tick ${last + 4}$`), { timeoutMs: 60_000 });
      if (life < 3) {
        // It goes on as it was after one that leaves it running, too.
        await container.checkpoint();
        await container.waitForLine(new RegExp(`^tick ${last + container.lines().length + 2}$`), {
          timeoutMs: 60_000,
        });
        await container.checkpoint({ exit: true });
        await container.waitForExit();
      }
      const ticks = ticksOf(container);
      expect(container.lines().filter((line) => !line.startsWith('tick '))).toEqual([]);
      expect(ticks).toEqual(Array.from(ticks, (_, i) => last + 1 + i));
      last += ticks.length;
      await container.remove();
    }
  });
});
