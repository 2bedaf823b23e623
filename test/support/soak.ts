import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { installCountingCriu } from './counting-criu.ts';
import type { Container } from './engine.ts';
import { ctrEngine } from './engine-ctr.ts';
import { enabled, ticksOf } from './jobs.ts';
import { type Load, watchLoad } from './load.ts';
import type { Stack } from './stack.ts';
import { waitFor } from './wait.ts';

export type Phase = {
  name: string;
  /** Wall time until the last container was through. */
  ms: number;
  slowest: { id: string; ms: number };
};

export type Soaked = {
  phases: Phase[];
  /** What did not come through, and why; empty when nothing was lost. */
  lost: { id: string; phase: string; reason: string }[];
  /** How many CRIUs worked at once, at most. */
  atOnce: { dumps: number; restores: number };
  load: Load;
};

/** Slower than {@link import('./jobs.ts').counting}: two hundred of those load the cores by themselves. */
const counting = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo tick $i; sleep 1; done'];

/** A command of one among many may wait its turn for long; how long is not what is looked at. */
const patience = 1_800_000;

type Job = { key: string; container: Container; last: number };

/**
 * Many counting containers on one host: created together, checkpointed together with exit, deleted together, and
 * restored together in new containers. Whatever becomes of one of them, the others go on.
 */
export async function soak(
  stack: Stack,
  { image, count, said = () => {} }: { image: string; count: number; said?: (phase: Phase) => void },
): Promise<Soaked> {
  const criu = installCountingCriu(stack);
  const watch = watchLoad('dist/tardis-runc.cjs');
  const phases: Phase[] = [];
  const lost: Soaked['lost'] = [];

  /** Does one thing to all of them at once; goes on with those to whom it was done. */
  const together = async <In extends { key: string }, Out>(
    name: string,
    jobs: readonly In[],
    act: (job: In) => Promise<Out>,
  ): Promise<Out[]> => {
    const began = performance.now();
    let slowest = { id: 'none', ms: 0 };
    const results = await Promise.all(
      jobs.map(async (job) => {
        try {
          const result = [await act(job)];
          const ms = performance.now() - began;
          if (ms > slowest.ms) slowest = { id: job.key, ms };
          return result;
        } catch (error) {
          const reason = error instanceof Error ? error.message : String(error);
          lost.push({
            id: job.key,
            phase: name,
            reason: [reason, ...logAbout(stack, job.key)].join('\n'),
          });
          return [];
        }
      }),
    );
    const phase = { name, ms: performance.now() - began, slowest };
    phases.push(phase);
    said(phase);
    return results.flat();
  };
  const run = (key: string, life: number): Promise<Container> => {
    const spec = { image, args: counting, env: enabled(key), timeoutMs: patience };
    return ctrEngine(stack).run({ id: `${key}-${life}`, ...spec });
  };
  const waiting = { timeoutMs: patience, everyMs: 250 };
  const hasTicked = (container: Container, times: number) =>
    waitFor(`${container.id} to count`, () => ticksOf(container).length >= times, waiting);

  const keys = Array.from({ length: count }, (_, i) => ({ key: `job-${String(i + 1).padStart(3, '0')}` }));
  const created = await together('create', keys, async ({ key }) => ({ key, container: await run(key, 1) }));
  const counted = await together('count', created, async (job) => {
    await hasTicked(job.container, 2);
    return job;
  });
  const checkpointed = await together('checkpoint', counted, async (job) => {
    await job.container.checkpoint({ exit: true, timeoutMs: patience });
    return job;
  });
  const deleted = await together('delete', checkpointed, async (job) => {
    await job.container.remove({ timeoutMs: patience });
    return job;
  });
  // The shims copy the last words after the containers' end, and nobody waits for it.
  const logs = new Set(deleted.map(({ container }) => join(stack.dir, 'output', container.id, 'log')));
  await waitFor('the logs to be closed', () => !isAnyOpen(logs), waiting);
  const ended: Job[] = deleted.map((job) => ({ ...job, last: ticksOf(job.container).at(-1) ?? 0 }));
  const restored = await together('restore', ended, async (job) => ({
    ...job,
    container: await run(job.key, 2),
  }));
  const continued = await together('continue', restored, async (job) => {
    await hasTicked(job.container, 3);
    const found = ticksOf(job.container);
    const expected = found.map((_, i) => job.last + 1 + i);
    if (found.join() !== expected.join()) {
      throw new Error(`expected ${expected.join(' ')} after ${job.last}, found ${found.join(' ')}`);
    }
    return job;
  });
  await together('remove', continued, (job) => job.container.remove({ timeoutMs: patience }));

  const atOnce = { dumps: criu.mostAtOnce('checkpoint'), restores: criu.mostAtOnce('restore') };
  return { phases, lost, atOnce, load: watch.stop() };
}

/** All that Tardis has logged of a job's containers: a number that is wrong does not tell why. */
const logAbout = ({ logFile }: Stack, key: string): string[] =>
  readFileSync(logFile, 'utf8')
    .split('\n')
    .filter((line) => line.includes(`"${key}-`));

/** Whether any process has one of these files open; looked at once for all of the containers. */
function isAnyOpen(files: ReadonlySet<string>): boolean {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .some((pid) => {
      try {
        const fds = join('/proc', pid, 'fd');
        return readdirSync(fds).some((fd) => isLinkTo(files, join(fds, fd)));
      } catch {
        return false; // It has ended under our eyes.
      }
    });
}

function isLinkTo(files: ReadonlySet<string>, link: string): boolean {
  try {
    return files.has(readlinkSync(link));
  } catch {
    return false; // It has just been closed.
  }
}

/** Where the wrappers' time went, from Tardis's own log: the steps of all containers, the dearest first. */
export function stepCosts(
  logFile: string,
): { step: string; times: number; totalMs: number; mostMs: number }[] {
  const costs = new Map<string, { times: number; totalMs: number; mostMs: number }>();
  for (const line of existsSync(logFile) ? readFileSync(logFile, 'utf8').trim().split('\n') : []) {
    const { from, to, ms } = JSON.parse(line) as { from?: string; to?: string; ms?: number };
    if (from === undefined || to === undefined || ms === undefined) continue;
    const { times, totalMs, mostMs } = costs.get(from) ?? { times: 0, totalMs: 0, mostMs: 0 };
    costs.set(from, { times: times + 1, totalMs: totalMs + ms, mostMs: Math.max(mostMs, ms) });
  }
  return [...costs].map(([step, cost]) => ({ step, ...cost })).sort((a, b) => b.totalMs - a.totalMs);
}
