import { readFileSync, writeFileSync } from 'node:fs';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Guardian } from '../../src/actions/guardian.ts';
import type { Host } from '../../src/actions/host.ts';
import { takeLock } from '../../src/actions/lock.ts';
import { untouched } from '../support/action-guardian.ts';
import { hostWith } from '../support/action-host.ts';
import { isThere, Job, sessionOf, statOf } from '../support/action-processes.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { projectRoot } from '../support/paths.ts';
import { waitFor } from '../support/wait.ts';

const scratch = useScratch();
const freezer = () => scratch.at('freezer.state');
const word = () => readFileSync(freezer(), 'utf8');
beforeEach(() => writeFileSync(freezer(), untouched));

/** None may be left: it would take this process for a wrapper that sleeps. */
const guardians: Guardian[] = [];
afterEach(() => Promise.all(guardians.splice(0).map((guardian) => guardian.dismiss())));

function guard(given: Partial<Host> = {}, keepFrozen = false) {
  const logged: string[] = [];
  const log = pino({ base: null }, { write: (line: string) => void logged.push(JSON.parse(line).msg) });
  const host = hostWith({ home: projectRoot, log, ...given });
  const place = { version: 1, directory: scratch.path } as const;
  const guardian = new Guardian(host, { id: 'job', freezer: place, keepFrozen });
  guardians.push(guardian);
  return { guardian, logged };
}

/** As far as it is known from outside: its clock has begun to tick. */
const ready = ({ pid = 0 }: Guardian) =>
  waitFor('the start of the guardian', () => sessionOf(pid).length >= 3 || undefined);

describe('Guardian', () => {
  it('ends when it is dismissed, and has touched nothing', async () => {
    const { guardian, logged } = guard();
    guardian.beat();
    guardian.work(process.pid);
    guardian.work(undefined);
    expect(await guardian.hasStruck()).toBe(false);
    await guardian.dismiss();
    expect([isThere(guardian.pid ?? 0), word(), logged]).toEqual([false, untouched, []]);
  });

  it('may be dismissed again', async () => {
    const { guardian } = guard();
    await Promise.all([guardian.dismiss(), guardian.dismiss()]);
    await guardian.dismiss();
  });

  it('is named after the container for whoever looks, and is out of the process group of its wrapper', async () => {
    const { guardian } = guard();
    const pid = guardian.pid ?? 0;
    await ready(guardian);
    const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    expect(line.slice(1, 8)).toEqual([
      `${projectRoot}/bin/tardis-guardian`,
      ...['job', '30', freezer(), 'THAWED', 'FROZEN', String(process.pid)],
    ]);
    expect(statOf(pid)?.session).toBe(pid);
  });

  it('strikes if no word comes, and says so: it kills what works, and stops what was stopped', async () => {
    const { config } = hostWith();
    using job = new Job('sleep 600 & wait');
    using task = new Job('sleep 600; :');
    await job.grown(2);
    const { guardian } = guard({ config: { ...config, freezeStallSeconds: 0.2 } });
    guardian.work(job.pid);
    guardian.stop([task.pid]);
    await waitFor('the strike', () => guardian.hasStruck());
    await waitFor('the thaw', () => word() === 'THAWED\n' || undefined);
    expect([job.all, statOf(task.pid)?.state]).toEqual([[], 'T']);
    await guardian.dismiss();
    expect(isThere(guardian.pid ?? 0)).toBe(false);
  });

  it('leaves a container frozen that was paused before, if it strikes', async () => {
    const { config } = hostWith();
    const { guardian } = guard({ config: { ...config, freezeStallSeconds: 1 } }, true);
    await waitFor('the strike', () => guardian.hasStruck());
    await waitFor('the word', () => word() === 'FROZEN\n' || undefined);
  });

  it('does no harm if it is killed', async () => {
    const { guardian } = guard();
    await ready(guardian);
    process.kill(guardian.pid ?? 0, 'SIGKILL');
    // Written before this process can know, and after.
    guardian.beat();
    await waitFor('its end', () => !isThere(guardian.pid ?? 0) || undefined);
    guardian.beat();
    guardian.work(process.pid);
    expect(await guardian.hasStruck()).toBe(false);
    await guardian.dismiss();
    expect(word()).toBe(untouched);
  });

  it('holds the lock of its wrapper for as long as it is there', async () => {
    const take = (timeoutSeconds: number) =>
      takeLock(scratch.at('run'), '/run/runc', 'job', { timeoutSeconds });
    const lock = take(0);
    const { guardian } = guard({ locks: [lock.descriptor] });
    lock.release();
    expect((await problemOf(() => take(0))).code).toBe('locked');
    await guardian.dismiss();
    take(5).release();
  });

  it.each([
    ['Tardis was not started by its launcher', () => undefined],
    ['the program is missing', () => scratch.path],
  ])('does nothing, and says so, if %s', async (_, home) => {
    const { guardian, logged } = guard({ home: home() });
    guardian.beat();
    guardian.work(process.pid);
    guardian.stop([process.pid]);
    expect([guardian.pid, await guardian.hasStruck()]).toEqual([undefined, false]);
    await guardian.dismiss();
    expect(logged).toEqual([expect.stringMatching(/^no guardian: /)]);
  });

  it('does nothing, and says so, if the program cannot be started', async () => {
    writeFileSync(scratch.at('bin', 'tardis-guardian'), '#!/nowhere\n', { mode: 0o755 });
    const { guardian, logged } = guard({ home: scratch.path });
    guardian.beat();
    await guardian.dismiss();
    expect(logged).toEqual(['no guardian can be started']);
  });
});
