import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Guardian } from '../../src/actions/guardian.ts';
import { cpuTimeOf } from '../../src/actions/processes.ts';
import { Progress } from '../../src/actions/progress.ts';
import { Watch, type WatchOptions } from '../../src/actions/watch.ts';
import { maxSecondsFor } from '../../src/actions/watch-job.ts';
import { untouched } from '../support/action-guardian.ts';
import { hostWith } from '../support/action-host.ts';
import { isThere, Job } from '../support/action-processes.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { projectRoot } from '../support/paths.ts';
import { waitFor } from '../support/wait.ts';

const scratch = useScratch();

/** A watch's clock is the test's own; the programs that it watches are real. */
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});
/**
 * Lets a watch look once for each second. A program that has only just begun makes progress for the first looks: where a limit is to
 * be reached, many are allowed.
 */
const pass = (seconds: number) => vi.advanceTimersByTime(seconds * 1_000);

const watches: Watch[] = [];
afterEach(() => Promise.all(watches.splice(0).map((watch) => watch.end())));

/** A watch that gives up after 30 s without progress, and 900 s in all. */
function watchWith(given: Partial<WatchOptions> = {}) {
  const released = vi.fn(() => 'and the job runs on');
  const watch = new Watch(hostWith(), {
    progress: new Progress(() => ''),
    subject: 'the checkpoint',
    maxSeconds: 900,
    release: released,
    ...given,
  });
  watches.push(watch);
  return { watch, released };
}

/** A step that waits for a program, which never ends by itself, nor does what that has begun. */
function waiting(script = "trap '' TERM; sleep 600 & wait") {
  const pids: number[] = [];
  const step = async () => {
    const child = spawn('sh', ['-c', script], { stdio: 'ignore' });
    pids.push(child.pid ?? 0);
    await once(child, 'exit');
    throw new Error('the program was killed');
  };
  const began = () => waitFor('the program', () => pids.length > 0 || undefined);
  return { step, pids, began };
}

const forever = () => new Promise<never>(() => {});

describe('bound', () => {
  it('answers with what the step does, and throws what it throws', async () => {
    const { watch, released } = watchWith();
    expect(await watch.bound('dumpMemory', () => 7)).toBe(7);
    expect(await watch.bound('dumpMemory', async () => 'done')).toBe('done');
    await expect(
      watch.bound('dumpMemory', () => {
        throw new Error('no space');
      }),
    ).rejects.toThrow('no space');
    pass(29);
    expect(await watch.bound('commitImage', () => 8)).toBe(8);
    expect([watch.struck, released.mock.calls]).toEqual([undefined, []]);
  });

  it('ends what works, releases the job, and tells where it stood if there is no progress', async () => {
    const { watch, released } = watchWith();
    const { step, pids, began } = waiting();
    const problem = problemOf(() => watch.bound('dumpMemory', step));
    await began();
    pass(1);
    watch.tells(() => 'Error (criu/seize.c): waits');
    pass(300);
    expect(await problem).toMatchObject({
      code: 'stalled',
      message: expect.stringMatching(
        /^the checkpoint made no progress for 30 s \(freezeStallSeconds is 30\) in step dumpMemory, CRIU's last line was: Error \(criu\/seize\.c\): waits; it was ended, and the job runs on$/,
      ),
    });
    expect(released).toHaveBeenCalledTimes(1);
    expect(pids.filter(isThere)).toEqual([]);
  });

  it('names the step alone if nobody knows how far CRIU got', async () => {
    const { watch } = watchWith();
    const { step, began } = waiting();
    await watch.bound('dumpMemory', () => watch.tells(() => 'an old line'));
    const problem = problemOf(() => watch.bound('saveRootfs', step));
    await began();
    pass(300);
    expect((await problem).message).toContain(' in step saveRootfs; it was ended, ');
  });

  it('ends a step that gets on, but takes too long in all', async () => {
    let written = 0;
    const progress = new Progress(() => String(++written));
    const { watch, released } = watchWith({ progress, maxSeconds: 100 });
    const { step, pids, began } = waiting();
    const problem = problemOf(() => watch.bound('commitImage', () => progress.writing(step)));
    await began();
    pass(99);
    expect(watch.struck).toBeUndefined();
    pass(1);
    expect(await problem).toMatchObject({
      code: 'too-long',
      message: expect.stringMatching(/^the checkpoint took 100 s, 100 are allowed .* in step commitImage; /),
    });
    expect([released.mock.calls.length, pids.filter(isThere)]).toEqual([1, []]);
  });

  it('counts the time of all steps together', async () => {
    let written = 0;
    const progress = new Progress(() => String(++written));
    const { watch } = watchWith({ progress, maxSeconds: 100 });
    for (let i = 0; i < 3; i++) {
      await watch.bound('saveRootfs', () => progress.writing(async () => pass(30)));
      expect(watch.struck).toBeUndefined();
    }
    const problem = await problemOf(() =>
      watch.bound('dumpMemory', () => progress.writing(async () => pass(30))),
    );
    expect(problem.code).toBe('too-long');
  });

  it('refuses a step after the one in which a limit was reached', async () => {
    const { watch, released } = watchWith();
    const { step, began } = waiting();
    const problem = problemOf(() => watch.bound('dumpMemory', step));
    await began();
    pass(300);
    const first = await problem;
    const effect = vi.fn();
    expect(await problemOf(() => watch.bound('describeImage', effect))).toBe(first);
    expect([effect.mock.calls, watch.struck]).toEqual([[], first]);
    pass(100);
    expect(released).toHaveBeenCalledTimes(1);
  });

  it('refuses the next step if a limit was reached in none', async () => {
    const { watch } = watchWith();
    pass(40);
    expect((await problemOf(() => watch.bound('dumpMemory', () => 7))).code).toBe('stalled');
  });

  it('gives its answer also if the step cannot end', async () => {
    const { watch } = watchWith();
    const problem = problemOf(() => watch.bound('dumpMemory', forever));
    await Promise.resolve();
    pass(40);
    expect((await problem).code).toBe('stalled');
  });

  it('gives its answer once the step has ended that was killed', async () => {
    const { watch } = watchWith();
    let isOver = false;
    const { step, began } = waiting();
    const problem = problemOf(() =>
      watch.bound('dumpMemory', () =>
        step().finally(() => {
          isOver = true;
        }),
      ),
    );
    await began();
    pass(300);
    await problem;
    expect(isOver).toBe(true);
  });

  it('answers every step at work if a limit is reached', async () => {
    const { watch } = watchWith();
    const [one, other] = [waiting(), waiting()];
    const problems = Promise.all(
      [one, other].map(({ step }) => problemOf(() => watch.bound('dumpMemory', step))),
    );
    await Promise.all([one.began(), other.began()]);
    pass(300);
    expect((await problems).map(({ code }) => code)).toEqual(['stalled', 'stalled']);
  });
});

describe('Watch', () => {
  /** Whether it gives up in a while in which its own limit for stillness comes twice. */
  async function survives(watch: Watch, progress: () => unknown): Promise<boolean> {
    for (let i = 0; i < 3; i++) {
      await progress();
      pass(20);
    }
    return watch.struck === undefined;
  }

  it('does not strike while a program uses a CPU, and does once that stands still', async () => {
    using job = new Job('while :; do :; done');
    const { watch } = watchWith();
    const works = () => {
      const before = cpuTimeOf(job.pid);
      return waitFor('more CPU time', () => cpuTimeOf(job.pid) > before || undefined);
    };
    expect(await survives(watch, works)).toBe(true);
    job.kill('SIGSTOP');
    expect(await survives(watch, () => {})).toBe(false);
  });

  it('does not strike while this process reads, and does once it does not', async () => {
    writeFileSync(scratch.at('pages'), Buffer.alloc(2 << 20));
    const { watch } = watchWith();
    expect(await survives(watch, () => readFileSync(scratch.at('pages')))).toBe(true);
    expect(await survives(watch, () => {})).toBe(false);
  });

  it('does not strike while somebody waits for a kernel that writes, and does once it writes no more', async () => {
    let written = 0;
    const progress = new Progress(() => String(written));
    const { watch } = watchWith({ progress });
    const { promise, resolve } = Promise.withResolvers<void>();
    const work = progress.writing(() => promise);
    expect(await survives(watch, () => ++written)).toBe(true);
    expect(await survives(watch, () => {})).toBe(false);
    resolve();
    await work;
  });

  it('looks no more once it has ended, and may be ended again', async () => {
    const { watch, released } = watchWith();
    await watch.end();
    pass(2_000);
    expect(await watch.bound('undo', () => 7)).toBe(7);
    await watch.end();
    expect(released).not.toHaveBeenCalled();
  });

  describe('with a guardian', () => {
    const guard = (freezeStallSeconds = 30) => {
      writeFileSync(scratch.at('freezer.state'), untouched);
      const host = hostWith({ home: projectRoot, config: { ...hostWith().config, freezeStallSeconds } });
      const freezer = { version: 1, directory: scratch.path } as const;
      const guardian = new Guardian(host, { id: 'job', freezer, keepFrozen: false });
      return { guardian, ...watchWith({ guardian, progress: new Progress(() => '', guardian.pid) }) };
    };
    const thawed = () => readFileSync(scratch.at('freezer.state'), 'utf8') === 'THAWED\n' || undefined;

    it('dismisses it when it ends, and may be ended again', async () => {
      const { guardian, watch } = guard();
      await Promise.all([watch.end(), watch.end()]);
      expect([isThere(guardian.pid ?? 0), thawed()]).toEqual([false, undefined]);
    });

    it('does not kill it with the programs that it ends', async () => {
      const { guardian, watch } = guard();
      const { step, began } = waiting();
      const problem = problemOf(() => watch.bound('dumpMemory', step));
      await began();
      pass(300);
      expect((await problem).code).toBe('stalled');
      expect(isThere(guardian.pid ?? 0)).toBe(true);
      expect(watch.guardian).toBe(guardian);
    });

    it('says that this process slept if the guardian struck over it', async () => {
      const { guardian, watch } = guard(1);
      const { step, began, pids } = waiting();
      const problem = problemOf(() =>
        watch.bound('dumpMemory', async () => {
          const work = step();
          guardian.work(pids[0]);
          await work;
        }),
      );
      await began();
      // Nobody beats: the watch's own clock stands still.
      expect(await problem).toMatchObject({
        code: 'stalled',
        message: expect.stringMatching(/^the checkpoint slept in the kernel for .* in step dumpMemory, /),
      });
      expect(pids.filter(isThere)).toEqual([]);
    });

    it('refuses the next step if the guardian struck over one that came to its end', async () => {
      const { guardian, watch } = guard(1);
      await watch.bound('saveRootfs', () => waitFor('the strike', () => guardian.hasStruck()));
      const effect = vi.fn();
      expect(await problemOf(() => watch.bound('dumpMemory', effect))).toMatchObject({
        code: 'stalled',
        message: expect.stringContaining('in step saveRootfs, '),
      });
      expect(effect).not.toHaveBeenCalled();
    });
  });
});

describe('maxSecondsFor', () => {
  it.each([
    [0, 900],
    [1 << 30, 960],
    [4 * (1 << 30), 1_140],
  ])('gives a job of %i bytes %i s', (bytes, seconds) => {
    expect(maxSecondsFor({ maxFreezeSeconds: 900 }, bytes)).toBe(seconds);
  });
});
