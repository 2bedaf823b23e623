import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import { GuardianRun, shells, untouched } from '../support/action-guardian.ts';
import { isThere, Job, statOf } from '../support/action-processes.ts';
import { waitFor } from '../support/wait.ts';

// They wait for clocks, each for its own.
vi.setConfig({ maxConcurrency: 30 });

/** A program that works for the wrapper: it does not end when it is asked to, and has children and a grandchild. */
const stubborn = `trap '' TERM; sleep 600 & (sleep 600 & sleep 600; :) & wait`;
const stubbornCount = 5;

/** Even root needs CAP_SYS_RESOURCE for it. */
const mayLower =
  spawnSync('sh', ['-c', 'echo -1000 >"/proc/$$/oom_score_adj"'], { stdio: 'ignore' }).status === 0;

const workOf = ({ pid, startTime }: Job): string => `work ${pid} ${startTime}`;
const hasThawed = (guardian: GuardianRun) =>
  waitFor('the thaw', () => guardian.word !== untouched || undefined, { timeoutMs: 10_000 });

describe.concurrent.each(shells)('tardis-guardian under %s', (...shell) => {
  it('ends at once, and writes nothing, if the checkpoint is done', async () => {
    using guardian = new GuardianRun(shell);
    using job = new Job(stubborn);
    guardian.say('beat', workOf(job), 'done');
    expect(await guardian.end()).toBe(0);
    expect([guardian.word, guardian.said, isThere(job.pid)]).toEqual([untouched, '', true]);
  });

  it('ends the same way if it is told late that the checkpoint is done', async () => {
    using guardian = new GuardianRun(shell);
    guardian.say('beat');
    // Its clock ticks meanwhile.
    await delay(1_200);
    guardian.say('done');
    expect(await guardian.end()).toBe(0);
    expect(guardian.word).toBe(untouched);
  });

  it('thaws the job at once if the wrapper is gone', async () => {
    using guardian = new GuardianRun(shell);
    guardian.say('beat');
    guardian.close();
    // Silence alone would take longer.
    await hasThawed(guardian);
    expect(await guardian.end()).toBe(0);
    expect(guardian.word).toBe('THAWED\n');
  });

  it('freezes the job again if it was told to keep it frozen', async () => {
    using guardian = new GuardianRun(shell);
    guardian.say('keep', 'beat');
    guardian.close();
    expect(await guardian.end()).toBe(0);
    expect(guardian.word).toBe('FROZEN\n');
  });

  it('kills the program at work with all its descendants if the wrapper is gone', async () => {
    using job = new Job(stubborn);
    await job.grown(stubbornCount);
    using guardian = new GuardianRun(shell);
    guardian.say(workOf(job));
    guardian.close();
    expect(await guardian.end()).toBe(0);
    expect([guardian.word, job.all]).toEqual(['THAWED\n', []]);
  });

  it('kills also what a program at work begets without end', async () => {
    using guardian = new GuardianRun(shell);
    using job = new Job(`(while :; do sleep 600 & sleep 0.002; done) & wait`);
    guardian.say(workOf(job));
    guardian.close();
    expect(await guardian.end()).toBe(0);
    expect(job.all).toEqual([]);
  });

  it('kills nothing if the pid at work has been used again', async () => {
    using job = new Job(stubborn);
    await job.grown(stubbornCount);
    using guardian = new GuardianRun(shell);
    guardian.say(`work ${job.pid} ${job.startTime + 1}`);
    guardian.close();
    expect(await guardian.end()).toBe(0);
    expect([guardian.word, job.all.length]).toEqual(['THAWED\n', stubbornCount]);
    expect(statOf(job.pid)?.state).toBe('S');
  });

  it('kills nothing if the program at work has been told to be at rest', async () => {
    using job = new Job(stubborn);
    await job.grown(stubbornCount);
    using guardian = new GuardianRun(shell);
    guardian.say(workOf(job), 'rest');
    guardian.close();
    expect(await guardian.end()).toBe(0);
    expect([guardian.word, job.all.length]).toEqual(['THAWED\n', stubbornCount]);
  });

  it('kills the program that works now, not the one before', async () => {
    using before = new Job(stubborn);
    using now = new Job(stubborn);
    await Promise.all([before.grown(stubbornCount), now.grown(stubbornCount)]);
    using guardian = new GuardianRun(shell);
    guardian.say(workOf(before), 'rest', workOf(now));
    guardian.close();
    expect(await guardian.end()).toBe(0);
    expect([before.all.length, now.all.length]).toEqual([stubbornCount, 0]);
  });

  it('lets a program end by itself if it does so soon', async () => {
    using guardian = new GuardianRun(shell);
    const end = `${guardian.freezer}.end`;
    // What it leaves behind was never stopped or killed.
    using job = new Job(`sleep 600 & until [ -e ${end} ]; do sleep 0.05; done`);
    await waitFor('its child', () => job.all.length >= 2 || undefined);
    guardian.say(workOf(job));
    guardian.close();
    writeFileSync(end, '');
    expect(await guardian.end()).toBe(0);
    expect(guardian.word).toBe('THAWED\n');
    expect(job.all.map((pid) => statOf(pid)?.state)).toEqual(['S']);
  });

  it('stops the tasks that a dump had continued before it thaws the job', async () => {
    using guardian = new GuardianRun(shell, { slowFreezer: true });
    using task = new Job('sleep 600; :');
    using other = new Job('sleep 600; :');
    guardian.say(`stop ${task.pid} ${other.pid}`);
    guardian.close();
    // Whoever writes to the pipe waits for its reader, and nobody has read yet.
    const stopped = ({ pid }: Job) => statOf(pid)?.state === 'T' || undefined;
    await waitFor('the stop', () => stopped(task) && stopped(other));
    expect(await readFile(guardian.freezer, 'utf8')).toBe('THAWED\n');
    expect(await guardian.end()).toBe(0);
    expect([stopped(task), stopped(other)]).toEqual([true, true]);
  });

  it('ignores lines that it does not know, and empty ones', async () => {
    using job = new Job(stubborn);
    await job.grown(stubbornCount);
    using guardian = new GuardianRun(shell);
    const long = 'x'.repeat(5_000);
    guardian.say(
      '',
      ' ',
      'doneness',
      'Done',
      'keeper',
      'work',
      'rest now',
      'stop',
      '$(kill $$)',
      '*',
      '\\',
      long,
    );
    guardian.say(workOf(job));
    guardian.close();
    expect(await guardian.end()).toBe(0);
    expect([guardian.word, job.all]).toEqual(['THAWED\n', []]);
  });

  it('takes a line without its end for none', async () => {
    using guardian = new GuardianRun(shell);
    guardian.cut('done');
    expect(await guardian.end()).toBe(0);
    expect(guardian.word).toBe('THAWED\n');
  });

  it('keeps quiet for as long as the wrapper says something', async () => {
    using guardian = new GuardianRun(shell, { silence: 6 });
    for (const began = performance.now(); performance.now() - began < 8_000; ) {
      guardian.say('beat');
      await delay(500);
    }
    expect([guardian.word, guardian.said, guardian.hasEnded]).toEqual([untouched, '', false]);
    guardian.say('done');
    expect(await guardian.end()).toBe(0);
  });

  it('kills what works and thaws the job, and says so, if the wrapper is silent', async () => {
    using job = new Job(stubborn);
    await job.grown(stubbornCount);
    using guardian = new GuardianRun(shell, { silence: 1 });
    guardian.say(workOf(job));
    await hasThawed(guardian);
    expect(guardian.word).toBe('THAWED\n');
    await waitFor('the program to be gone', () => job.all.length === 0 || undefined);
    await waitFor('its word', () => guardian.said === 'struck\n' || undefined);
    guardian.say('beat', 'done');
    expect(await guardian.end()).toBe(3);
  });

  it('ends if the wrapper goes after it was silent', async () => {
    using guardian = new GuardianRun(shell, { silence: 1 });
    await hasThawed(guardian);
    guardian.close();
    expect(await guardian.end()).toBe(3);
    expect(guardian.word).toBe('THAWED\n');
  });

  it('kills a wrapper that was silent and lives on, and nobody else', async () => {
    using wrapper = new Job(stubborn);
    await wrapper.grown(stubbornCount);
    using guardian = new GuardianRun(shell, { silence: 1, wrapper: wrapper.pid });
    await hasThawed(guardian);
    expect(isThere(wrapper.pid)).toBe(true);
    expect(await guardian.end()).toBe(3);
    await waitFor('the end of the wrapper', () => !isThere(wrapper.pid) || undefined);
    expect(wrapper.all).toHaveLength(stubbornCount - 1);
  });

  it('leaves nothing behind, and touches nothing, if it is killed itself', async () => {
    using job = new Job(stubborn);
    await job.grown(stubbornCount);
    using guardian = new GuardianRun(shell);
    guardian.say(workOf(job));
    await waitFor('its clock', () => guardian.session.length >= 3 || undefined);
    guardian.kill();
    await guardian.end();
    expect([guardian.word, job.all.length]).toEqual([untouched, stubbornCount]);
  });

  it('is not ended by a signal that a terminal or a shutdown sends', async () => {
    using guardian = new GuardianRun(shell);
    await waitFor('its start', () => guardian.session.length >= 3 || undefined);
    for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGPIPE'] as const)
      process.kill(guardian.pid, signal);
    guardian.close();
    expect(await guardian.end()).toBe(0);
    expect(guardian.word).toBe('THAWED\n');
  });

  it.runIf(mayLower)('is the last thing that a lack of memory kills', async () => {
    using guardian = new GuardianRun(shell);
    await waitFor('its start', () => guardian.session.length >= 3 || undefined);
    expect(readFileSync(`/proc/${guardian.pid}/oom_score_adj`, 'utf8')).toBe('-1000\n');
    guardian.say('done');
    expect(await guardian.end()).toBe(0);
  });
});
