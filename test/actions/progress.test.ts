import { closeSync, openSync, readSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { cpuTimeOf, programOf } from '../../src/actions/processes.ts';
import { Progress } from '../../src/actions/progress.ts';
import { Job, programNamed } from '../support/action-processes.ts';
import { useScratch } from '../support/action-scratch.ts';
import { waitFor } from '../support/wait.ts';

const scratch = useScratch();
const busy = 'while :; do :; done';

/** A counter that is somewhere else whenever it is asked, and one that stands still. */
const moving = () => {
  let written = 0;
  return () => String(++written);
};
const standing = () => '';

/** A look that shows none: what a test itself has begun is over by then. */
const settled = (progress: Progress) =>
  waitFor('a look without progress', () => !progress.seen() || undefined);

const works = async ({ pid }: Job): Promise<void> => {
  const before = cpuTimeOf(pid);
  await waitFor('more CPU time', () => cpuTimeOf(pid) > before || undefined);
};

function read(bytes: number): void {
  const fd = openSync('/dev/zero', 'r');
  readSync(fd, Buffer.alloc(bytes));
  closeSync(fd);
}

describe('Progress', () => {
  it('sees none if nobody does anything', async () => {
    using _job = new Job('exec sleep 600');
    const progress = new Progress(moving());
    await settled(progress);
    await settled(progress);
  });

  it('sees a program that uses a CPU, and the one that it has begun in its turn', async () => {
    using job = new Job(`(${busy}) & wait`);
    await job.grown(2);
    const progress = new Progress(standing);
    for (let i = 0; i < 3; i++) {
      const [, child = 0] = job.all;
      const before = cpuTimeOf(child);
      await waitFor('more CPU time', () => cpuTimeOf(child) > before || undefined);
      expect(progress.seen()).toBe(true);
    }
    for (const pid of job.all) process.kill(pid, 'SIGSTOP');
    await settled(progress);
    expect(progress.seen()).toBe(false);
  });

  it('sees a program that has begun, and one that has ended', async () => {
    const progress = new Progress(standing);
    await settled(progress);
    {
      using _job = new Job('exec sleep 600');
      await waitFor('the program', () => progress.seen() || undefined);
      await settled(progress);
    }
    await waitFor('its end', () => progress.seen() || undefined);
  });

  it('does not see a runc, which only looks about, but CRIU below it', async () => {
    const runc = programNamed(scratch.at('runc'), 'sh');
    using job = new Job(busy, runc);
    await waitFor('its name', () => programOf(job.pid) === 'runc' || undefined);
    const progress = new Progress(standing);
    await works(job);
    await settled(progress);
    job.kill('SIGKILL');

    using other = new Job(`sh -c '${busy}' & wait`, runc);
    await other.grown(2);
    const below = new Progress(standing);
    for (let i = 0; i < 3; i++) await waitFor('the program below it', () => below.seen() || undefined);
  });

  it('does not see what was left out: the clock of a guardian', async () => {
    using guardian = new Job(`(${busy}) & wait`);
    await guardian.grown(2);
    const progress = new Progress(standing, guardian.pid);
    const [, clock = 0] = guardian.all;
    const before = cpuTimeOf(clock);
    await waitFor('more CPU time', () => cpuTimeOf(clock) > before || undefined);
    await settled(progress);
  });

  it('sees that this process itself is at work', async () => {
    const progress = new Progress(standing);
    await settled(progress);
    const began = process.cpuUsage();
    while (process.cpuUsage(began).user < 200_000);
    expect(progress.seen()).toBe(true);
  });

  it('sees that this process itself reads, but not for the little that a look takes', async () => {
    const progress = new Progress(standing);
    await settled(progress);
    read(2 << 20);
    expect(progress.seen()).toBe(true);
    read(64 << 10);
    expect(progress.seen()).toBe(false);
  });

  it('sees what the kernel writes for as long as sync waits for that, and only then', async () => {
    const progress = new Progress(moving());
    {
      using sync = new Job(undefined, programNamed(scratch.at('sync'), 'sleep'), ['600']);
      await waitFor('its name', () => programOf(sync.pid) === 'sync' || undefined);
      progress.seen();
      expect([progress.seen(), progress.seen()]).toEqual([true, true]);
    }
    await settled(progress);
    expect(progress.seen()).toBe(false);
  });

  it('sees none while sync waits for a kernel that does not write', async () => {
    const progress = new Progress(standing);
    using sync = new Job(undefined, programNamed(scratch.at('sync'), 'sleep'), ['600']);
    await waitFor('its name', () => programOf(sync.pid) === 'sync' || undefined);
    await settled(progress);
    expect(progress.seen()).toBe(false);
  });

  it('sees what the kernel writes for as long as this process waits for that', async () => {
    const progress = new Progress(moving());
    await settled(progress);
    const { promise, resolve } = Promise.withResolvers<string>();
    const work = progress.writing(() => promise);
    const other = progress.writing(async () => {
      throw new Error('no space');
    });
    await expect(other).rejects.toThrow('no space');
    expect([progress.seen(), progress.seen()]).toEqual([true, true]);
    resolve('done');
    expect(await work).toBe('done');
    expect(progress.seen()).toBe(false);
  });

  it('sees none while this process waits for a kernel that does not write', async () => {
    const progress = new Progress(standing);
    await settled(progress);
    const { promise, resolve } = Promise.withResolvers<void>();
    const work = progress.writing(() => promise);
    progress.seen();
    expect([progress.seen(), progress.seen()]).toEqual([false, false]);
    resolve();
    await work;
  });
});
