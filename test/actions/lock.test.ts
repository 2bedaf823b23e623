import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type LockOptions, takeLock } from '../../src/actions/lock.ts';
import { OtherWrapper } from '../support/action-lock.ts';
import { isThere } from '../support/action-processes.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { waitFor } from '../support/wait.ts';

const scratch = useScratch();
const freezer = '/sys/fs/cgroup/freezer';
const hasFreezer = isRoot && existsSync(join(freezer, 'cgroup.procs'));
const root = '/run/runc';
const file = (): string => scratch.at('run', 'locks', 'run', 'runc', 'job');
const take = (seconds = 0, id = 'job') => takeLock(scratch.at('run'), root, id, { timeoutSeconds: seconds });

describe('takeLock', () => {
  it('should lock one container only', () => {
    const lock = take();
    take(0, 'other').release();
    takeLock(scratch.at('run'), '/run/other', 'job', { timeoutSeconds: 0 }).release();
    lock.release();
  });

  it('should fail at once where it only tries, and the container is locked', async () => {
    const lock = take();
    const problem = await problemOf(() => take(0));
    expect(problem).toMatchObject({ code: 'locked', message: expect.stringContaining('container job') });
    lock.release();
    take(0).release();
  });

  it('should fail when its time is up', async () => {
    const lock = take();
    const problem = await problemOf(() => take(0.05));
    expect(problem).toMatchObject({ code: 'locked', message: expect.stringMatching(/for 0\.05 s$/) });
    lock.release();
    take(0.05).release();
  });

  it('should not keep files open after a failure', async () => {
    const lock = take();
    const open = readdirSync('/proc/self/fd').length;
    for (let i = 0; i < 10; i++) await problemOf(() => take(0));
    expect(readdirSync('/proc/self/fd').length).toBeLessThan(open + 10);
    lock.release();
  });

  it('should leave the file when it is released, and remove it when it is discarded', () => {
    take().release();
    expect(existsSync(file())).toBe(true);
    take().discard();
    expect(existsSync(file())).toBe(false);
    take().release();
  });

  it("should be for root's eyes only", () => {
    take().release();
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    expect(statSync(scratch.at('run', 'locks')).mode & 0o777).toBe(0o700);
  });

  it('should say that it cannot lock where there is no flock', async () => {
    const path = process.env.PATH;
    process.env.PATH = scratch.path;
    try {
      const problem = await problemOf(() => take());
      expect(problem).toMatchObject({
        code: 'lock',
        message: expect.stringMatching(/^cannot lock .*ENOENT/),
      });
      expect(problem.message).toContain(file());
    } finally {
      process.env.PATH = path;
    }
  });

  it("should say flock's status where that fails", async () => {
    const path = process.env.PATH;
    writeFileSync(scratch.at('bin', 'flock'), '#!/bin/sh\nexit 69\n', { mode: 0o755 });
    process.env.PATH = `${scratch.at('bin')}:${path}`;
    try {
      expect((await problemOf(() => take())).message).toContain('flock ended with 69');
    } finally {
      process.env.PATH = path;
    }
  });

  it("should fail with the file system's reason where there is no place for locks", () => {
    writeFileSync(scratch.at('run'), '');
    expect(() => take()).toThrow(expect.objectContaining({ code: 'ENOTDIR' }));
  });
});

describe('a lock between processes', () => {
  let others: OtherWrapper[] = [];
  const another = (): OtherWrapper => {
    const home = scratch.at(`other-${others.length}`);
    mkdirSync(home);
    const other = new OtherWrapper(home, 'lock', [scratch.at('run'), root, 'job', '600']);
    others.push(other);
    return other;
  };
  beforeEach(() => {
    others = [];
  });
  afterEach(() => Promise.all(others.map((other) => other.kill())));

  it('should keep others out for as long as it is held', async () => {
    const other = another();
    other.order('take');
    expect(await other.answer()).toBe('take');
    expect((await problemOf(() => take(0))).code).toBe('locked');
    other.order('release');
    expect(await other.answer()).toBe('release');
    take(0).release();
  });

  it('should be had by one that waited for its release', async () => {
    const lock = take();
    const other = another();
    other.order('take');
    await other.asks();
    lock.release();
    expect(await other.answer()).toBe('take');
    expect((await problemOf(() => take(0))).code).toBe('locked');
  });

  it('should be released by the death of its holder, for one that waits and for one that comes', async () => {
    const [holder, waiter] = [another(), another()];
    holder.order('take');
    expect(await holder.answer()).toBe('take');
    waiter.order('take');
    await waiter.asks();
    await holder.kill();
    expect(await waiter.answer()).toBe('take');
    expect((await problemOf(() => take(0))).code).toBe('locked');
    await waiter.kill();
    take(0).release();
  });

  describe('when its holder has died and left a program at work', () => {
    beforeEach(async () => {
      const holder = another();
      for (const order of ['take', 'leave']) {
        holder.order(order);
        expect(await holder.answer()).toBe(order);
      }
      await holder.kill();
    });
    const ended: number[] = [];
    const takeFrom = (options: Partial<LockOptions>) => {
      ended.length = 0;
      const onOrphans = (pids: readonly number[]) => ended.push(...pids);
      return takeLock(scratch.at('run'), root, 'job', { timeoutSeconds: 600, onOrphans, ...options });
    };
    afterEach(() => takeFrom({ orphanSeconds: 0 }).release());

    it('should be held by that, for one that only tries', async () => {
      expect((await problemOf(() => takeFrom({ timeoutSeconds: 0 }))).code).toBe('locked');
      expect(ended).toEqual([]);
    });

    it('should be had when time is up, once that has been ended with all that it began', () => {
      takeFrom({ timeoutSeconds: 0.05 }).release();
      // The shell, and what it waits for.
      expect(ended).toHaveLength(2);
    });

    it('should be had at once by one that does not wait for such', () => {
      takeFrom({ orphanSeconds: 0 }).release();
      expect(ended).toHaveLength(2);
    });
  });

  it('should not be taken from a holder that lives, whatever it has at work', async () => {
    const holder = another();
    for (const order of ['take', 'leave']) {
      holder.order(order);
      expect(await holder.answer()).toBe(order);
    }
    const take = () => takeLock(scratch.at('run'), root, 'job', { timeoutSeconds: 0.05, orphanSeconds: 0 });
    expect((await problemOf(take)).code).toBe('locked');
    await holder.kill();
    take().release();
  });

  describe('for a container that is to be gone', () => {
    const ended: number[] = [];
    const takeForced = (wrapperSeconds: number) => {
      ended.length = 0;
      const onOrphans = (pids: readonly number[]) => ended.push(...pids);
      return takeLock(scratch.at('run'), root, 'job', { timeoutSeconds: 600, wrapperSeconds, onOrphans });
    };
    const holding = async (...orders: string[]): Promise<OtherWrapper> => {
      const holder = another();
      for (const order of ['take', ...orders]) {
        holder.order(...order.split(' '));
        expect(await holder.answer()).toBe(order.split(' ')[0]);
      }
      return holder;
    };

    it('is had at once if it is free', () => {
      takeForced(600).release();
      expect(ended).toEqual([]);
    });

    it('is waited for if its holder lives', async () => {
      const holder = await holding('later 200');
      takeForced(600).release();
      expect(ended).toEqual([]);
      expect(isThere(holder.pid)).toBe(true);
    });

    it('is taken when that time is up from a holder that lives, which ends with all that works for it', async () => {
      const holder = await holding('leave');
      takeForced(0.05).release();
      expect(ended).toContain(holder.pid);
      // Itself, a shell, and what that waits for.
      expect(ended).toHaveLength(3);
      await waitFor('their end', () => !ended.some(isThere) || undefined);
    });

    it('is taken at once from what a dead holder has left', async () => {
      const holder = await holding('leave');
      await holder.kill();
      takeForced(600).release();
      expect(ended).toHaveLength(2);
    });

    it.runIf(hasFreezer)('is refused if its holder cannot be ended', async () => {
      const holder = await holding();
      const cgroup = mkdtempSync(join(freezer, 'tardis-unit-'));
      try {
        // Under a v1 freezer not even SIGKILL ends a process: it sleeps as on a file server that is gone.
        writeFileSync(join(cgroup, 'cgroup.procs'), String(holder.pid));
        writeFileSync(join(cgroup, 'freezer.state'), 'FROZEN');
        const isFrozen = () =>
          readFileSync(join(cgroup, 'freezer.state'), 'utf8') === 'FROZEN\n' || undefined;
        await waitFor('the freeze', isFrozen);
        expect(await problemOf(() => takeForced(0.05))).toMatchObject({
          code: 'locked',
          message: 'what works on container job cannot be ended: it sleeps in the kernel',
        });
        expect(isThere(holder.pid)).toBe(true);
      } finally {
        writeFileSync(join(cgroup, 'freezer.state'), 'THAWED');
        await holder.kill();
        await waitFor('the end of the cgroup', () => rmdirSync(cgroup) === undefined);
      }
      takeForced(600).release();
    });
  });

  it('should lock the others out also for one that waited while the file was discarded', async () => {
    const lock = take();
    const waiter = another();
    waiter.order('take');
    await waiter.asks();
    lock.discard();
    expect(await waiter.answer()).toBe('take');
    // It holds the file that everybody finds, not the one that is gone.
    expect(existsSync(file())).toBe(true);
    expect((await problemOf(() => take(0))).code).toBe('locked');
    waiter.order('release');
    expect(await waiter.answer()).toBe('release');
    take(0).release();
  });

  it('should be held by one at a time, releases and discards mixed', async () => {
    const all = [another(), another(), another()];
    for (const other of all) other.order('meet', scratch.at('meeting'));
    expect(await Promise.all(all.map((other) => other.answer()))).toEqual(['meet', 'meet', 'meet']);
  });
});
