import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { cpuTimeOf, descendantsOf, programOf } from '../../src/actions/processes.ts';
import { Job, programNamed } from '../support/action-processes.ts';
import { useScratch } from '../support/action-scratch.ts';
import { waitFor } from '../support/wait.ts';

const scratch = useScratch();
const sorted = (pids: number[]) => pids.toSorted((a, b) => a - b);
/** Of a process that has ended and been reaped. */
const gone = (): number => spawnSync('true').pid;

describe('descendantsOf', () => {
  it('finds the children of a process, and theirs', async () => {
    using job = new Job('sleep 600 & (sleep 600 & (sleep 600; :) & wait) & wait');
    await job.grown(6);
    expect(sorted([job.pid, ...descendantsOf(job.pid)])).toEqual(sorted(job.all));
  });

  it('finds the children of every thread', async () => {
    // This process has several; those that it has begun are among its own.
    using job = new Job('sleep 600 & wait');
    await job.grown(2);
    expect(descendantsOf(process.pid)).toEqual(expect.arrayContaining(job.all));
  });

  it('leaves one out with all that descends from it', async () => {
    using job = new Job('sleep 600 & wait');
    using other = new Job('sleep 600 & wait');
    await Promise.all([job.grown(2), other.grown(2)]);
    const found = descendantsOf(process.pid, job.pid);
    expect(found).toEqual(expect.arrayContaining(other.all));
    expect(found.filter((pid) => job.all.includes(pid))).toEqual([]);
  });

  it('finds nothing if there is no such process, or it has no children', () => {
    using job = new Job('exec sleep 600');
    expect([descendantsOf(gone()), descendantsOf(job.pid)]).toEqual([[], []]);
  });
});

describe('cpuTimeOf', () => {
  it('grows while a process works, and stands still while it does not', async () => {
    using job = new Job('while :; do :; done');
    const before = cpuTimeOf(job.pid);
    await waitFor('more CPU time', () => cpuTimeOf(job.pid) > before + 1_000_000 || undefined);
    job.kill('SIGSTOP');
    const seen = new Set<number>();
    await waitFor('a moment without any', () => {
      const time = cpuTimeOf(job.pid);
      const isStill = seen.has(time);
      seen.add(time);
      return isStill || undefined;
    });
    const still = cpuTimeOf(job.pid);
    expect(still).toBeGreaterThan(before);
    expect(cpuTimeOf(job.pid)).toBe(still);
  });

  it('counts every thread', () => {
    expect(cpuTimeOf(process.pid)).toBeGreaterThan((process.cpuUsage().user * 1_000) / 4);
  });

  it('is 0 if there is no such process', () => {
    expect(cpuTimeOf(gone())).toBe(0);
  });
});

describe('programOf', () => {
  it('is the name of the program, cut to 15 characters', async () => {
    using job = new Job('sleep 600; :', programNamed(scratch.at('containerd-shim-runc-v2'), 'sh'));
    await waitFor('the name', () => programOf(job.pid) === 'containerd-shim' || undefined);
  });

  it('is empty if there is no such process', () => {
    expect(programOf(gone())).toBe('');
  });
});
