import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { programOf } from '../../src/actions/processes.ts';
import { processStartTime } from '../../src/actions/runc-state.ts';
import {
  allCases,
  type Case,
  callRunc,
  flowOf,
  recovery,
  tableOf,
  titleOf,
  type Variant,
  wordsOf,
} from '../support/crash-cases.ts';
import { allSteps, type Flow } from '../support/crash-flows.ts';
import { CrashJob, leadsGroup, type Template } from '../support/crash-job.ts';
import { type DirectRunc, directRunc } from '../support/direct-runc.ts';
import { installFailingCriu } from '../support/failing-criu.ts';
import { MemoryCgroup } from '../support/memory-cgroup.ts';
import { fixturesDir, whichOrThrow } from '../support/paths.ts';
import { requireRealStack } from '../support/requires.ts';
import { rootfsListing } from '../support/rootfs-digest.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

/** What the container carries. */
const settingsOf = (variant: Variant): Record<string, string> => {
  if (variant === ', verified') return { TARDIS_VERIFY_BY_RESTORE: '1' };
  return variant === ', compressed' ? { TARDIS_COMPRESSION_LEVEL: '1' } : {};
};

/** How long a job may stand still whose wrapper is dead, where nobody sends a command. */
const patienceMs = 3_000;

/** How long a call may take whose runc hangs, with a limit of one second. */
const answerMs = 20_000;

describe.skipIf(requireRealStack().skip)('a wrapper that meets a fault at any of its steps', () => {
  let stack: Stack;
  let runc: DirectRunc;
  const templates = new Map<Variant, Template>();
  const pathWithout: Partial<Record<string, string>> = {};
  const outcomes = new Map<Case, string>();

  beforeAll(async () => {
    stack = await startStack({ config: { faultInjection: true }, rootJobsOnly: true });
    runc = await directRunc(stack);
    for (const [step, command] of [
      ['dumpMemory', 'checkpoint'],
      ['restoreMemory', 'restore'],
    ] as const) {
      const binDir = join(stack.dir, `without-${command}`);
      mkdirSync(binDir);
      installFailingCriu({ ...stack, binDir }).fail(command);
      pathWithout[step] = [binDir, stack.env.PATH].join(delimiter);
    }
    for (const compressed of ['', ', compressed'] as const) {
      const more = settingsOf(compressed);
      const job = await CrashJob.make(stack, runc, `template${compressed.length}`, { more });
      await job.begin('create').status();
      await job.start();
      await job.countsOn(3);
      expect(await job.checkpoint([])).toMatchObject({ exitCode: 0 });
      const pages = readdirSync(join(job.images, '1/checkpoint')).filter((name) => name.startsWith('pages-'));
      expect(pages.every((name) => name.endsWith('.zst'))).toBe(compressed !== '');
      templates.set(compressed, { images: job.images, last: job.ticks.length });
      await job.run(['delete', '--force']);
      expect(await job.leftovers()).toEqual([]);
    }
  });
  afterAll(async () => {
    console.log(tableOf(outcomes));
    await stack?.stop();
  });

  test('should be every step that the machines have', () => {
    const reached = new Set(allCases.map(({ step }) => step));
    expect(allSteps().filter((step) => !reached.has(step))).toEqual([]);
  });

  let count = 0;
  const takeTurns = turns(3);

  for (const given of allCases) {
    test.concurrent(titleOf(given), async () => {
      count += 1;
      const id = `c${count}`;
      await takeTurns(async () => {
        const trial = new Trial(
          given,
          await CrashJob.make(stack, runc, id, { more: settingsOf(given.variant) }),
        );
        try {
          await trial.prepare();
          outcomes.set(given, await trial.run());
        } catch (error) {
          outcomes.set(given, 'FAILED');
          const log = trial.job.warnings().join('\n  ');
          throw new Error(`${id}: ${(error as Error).message}\nlogged:\n  ${log}`, { cause: error });
        } finally {
          for (const pid of trial.job.processes()) process.kill(pid, 'SIGKILL');
          await trial.job.run(['delete', '--force']);
        }
      });
    });
  }

  test('a job whose end was begun, and broke off when it was killed already, resumes from its image', async () => {
    const job = await CrashJob.make(stack, runc, 'half-ended');
    await job.begin('create').status();
    await job.start();
    await job.countsOn();
    const [script, reached] = ['half-a-delete', 'half-a-delete.reached'].map((name) => join(stack.dir, name));
    const init = `sed -n 's/.*"init_process_pid":\\([0-9]*\\).*/\\1/p' "$2/$5/state.json"`;
    writeFileSync(
      script as string,
      `#!/bin/sh
      [ "$3" = delete ] || exec ${whichOrThrow('runc')} "$@"
      kill -KILL "$(${init})" && : >${reached} && exec sleep 60\n`,
      { mode: 0o755 },
    );
    const asking = job.checkpoint([], { TARDIS_REAL_RUNC: script as string });
    await waitFor('the job to be killed', () => existsSync(reached as string));
    for (const pid of job.wrappers()) process.kill(pid, 'SIGKILL');
    await asking;
    await waitFor('the guardian to have ended what was left', () => job.processes().length === 0);
    await job.run(['delete', '--force']);
    expect(await job.leftovers()).toEqual([]);
    const next = await CrashJob.make(stack, runc, 'half-ended-next', { imagesOf: job.id });
    await next.begin('create').status();
    await next.start();
    await next.countsOn();
    expect(next.ticks[0]).toBe(job.ticks.length + 1);
    await next.run(['delete', '--force']);
  });

  test('a job whose pause broke off when it was frozen already is checkpointed by the next command, and runs on', async () => {
    const job = await CrashJob.make(stack, runc, 'half-paused');
    await job.begin('create').status();
    await job.start();
    await job.countsOn();
    expect((await job.run(['pause'], { TARDIS_FAULT: 'after:pause:kill' })).exitCode).not.toBe(0);
    expect(await job.status()).toBe('paused');
    expect(await job.checkpointByShim(['--leave-running'], {}, { pauses: true })).toMatchObject({
      exitCode: 0,
    });
    await job.countsOn();
    // Its engine resumes it after the checkpoint; where that was not answered either, once more.
    const shim = join(fixturesDir, 'containerd-shim');
    const env = { ...stack.env, RUNTIME: stack.runtime };
    for (let i = 0; i < 2; i++) await runc.run(['resume', job.id], { program: shim, env });
    expect(await job.run(['resume'])).toMatchObject({ exitCode: 1 });
    // And where only the answer was lost: its engine takes it for running, and pauses it again.
    expect(await job.checkpointByShim(['--leave-running'], {}, { pauses: 'twice' })).toMatchObject({
      exitCode: 0,
    });
    await job.countsOn();
    await job.run(['delete', '--force']);
    expect(await job.leftovers()).toEqual([]);
  });

  test('a create whose runc is killed before it has a record leaves no cgroups', async () => {
    const job = await CrashJob.make(stack, runc, 'half-created');
    const script = join(stack.dir, 'half-a-create');
    const init = `sed -n 's/.*"init_process_pid":\\([0-9]*\\).*/\\1/p' "$2/half-created/state.json"`;
    const text = `#!/bin/sh
      ${whichOrThrow('runc')} "$@" || exit
      [ "$3" = create ] || exit 0
      kill -KILL "$(${init})" && rm -r "$2/half-created" && kill -KILL $$\n`;
    writeFileSync(script, text, { mode: 0o755 });
    expect(await job.begin('create', { TARDIS_REAL_RUNC: script }).status()).toBe(1);
    expect(await job.leftovers()).toEqual([]);
  });

  test('a CRIU whose runc is killed is ended before the job is let go', async () => {
    const job = await CrashJob.make(stack, runc, 'left-criu');
    await job.begin('create').status();
    await job.start();
    await job.countsOn();
    const binDir = mkdtempSync(join(stack.dir, 'left-criu-'));
    const [calls, reached] = ['calls', 'reached'].map((name) => join(binDir, name)) as [string, string];
    // The second call of a runc is the work itself; CRIU does that in its work directory.
    const text = `#!/bin/sh
      (echo "$PPID" >>${calls})
      [ "$(grep -cx "$PPID" ${calls})" -ge 2 ] || exec ${whichOrThrow('criu')} "$@"
      cd ${join(job.bundle, 'tardis-dump')} && (echo $$ >${reached}.new; mv ${reached}.new ${reached})
      exec sleep 100000\n`;
    writeFileSync(join(binDir, 'criu'), text, { mode: 0o755 });
    const asking = job.checkpoint(['--leave-running'], { PATH: [binDir, stack.env.PATH].join(delimiter) });
    await waitFor('criu to be at work', () => existsSync(reached));
    for (const pid of job.processes().filter((each) => programOf(each) === 'runc'))
      process.kill(pid, 'SIGKILL');
    expect((await asking).exitCode).toBe(1);
    expect(processStartTime(Number(readFileSync(reached, 'utf8')))).toBeUndefined();
    await job.countsOn();
    await job.run(['delete', '--force']);
  });

  /** One flow with one fault, and what comes after it. */
  class Trial {
    readonly given: Case;
    readonly flow: Flow;
    readonly job: CrashJob;
    /** The root file system before anything was done to it. */
    #pristine: string[] = [];
    /** Where the kernel kills the wrapper for want of memory; its shim, its guardian and its runc are in there, too. */
    #cgroup: MemoryCgroup | undefined;

    constructor(given: Case, job: CrashJob) {
      this.given = given;
      this.job = job;
      this.flow = flowOf(given);
    }

    get isBeginning(): boolean {
      return this.flow.event === 'CREATE' || this.flow.event === 'RESTORE';
    }

    get template(): Template {
      return templates.get(this.given.variant === ', compressed' ? ', compressed' : '') as Template;
    }

    /** Whether nobody sends a command after the wrapper's death. */
    get isAlone(): boolean {
      return this.given.fault.startsWith('alone');
    }

    /** An engine's shim pauses for each checkpoint; that pause is over with one that fails (decision 21). */
    get isPausedByShim(): boolean {
      return this.isAlone && this.flow.event === 'CHECKPOINT';
    }

    /** Whether it is the rollback itself that fails. */
    get isRollbackSpoilt(): boolean {
      return (
        ['removeLeftovers', 'resetRootfs'].includes(this.given.step) && !this.given.fault.startsWith('killed')
      );
    }

    /** Whether what clears up is told to do nothing: a partial image then stays. */
    get isClearingSpoilt(): boolean {
      return ['undo', 'recover'].includes(this.given.step) && this.given.fault === 'ENOSPC instead';
    }

    get env(): Record<string, string> {
      const PATH = this.flow.failing && pathWithout[this.flow.failing];
      return {
        TARDIS_FAULT: wordsOf(this.given),
        ...(PATH ? { PATH } : {}),
        ...(this.given.fault === 'hangs' ? { TARDIS_FREEZE_STALL_SECONDS: '1' } : {}),
      };
    }

    async prepare(): Promise<void> {
      const { job, flow } = this;
      if (flow.hasImage) job.takeImage(this.template);
      if (this.isBeginning) this.#pristine = await rootfsListing(join(job.bundle, 'rootfs'));
      for (const event of flow.story) {
        if (event === 'PAUSE' && this.isPausedByShim) continue;
        if (event === 'CREATE') expect(await job.begin('create').status(), job.call?.output()).toBe(0);
        else expect(await job.run([event.toLowerCase()])).toMatchObject({ exitCode: 0 });
        if (event === 'START') await job.countsOn();
      }
      if (!flow.hasImage && flow.story.length > 0) job.takeImage(this.template);
      if (flow.name === recovery.name) await job.checkpoint([], { TARDIS_FAULT: 'after:dumpMemory:kill' });
    }

    /** Its command; whether it has been answered with 0. */
    async #ask(): Promise<boolean> {
      const { job, env } = this;
      if (this.isAlone) {
        const words = this.flow.event === 'CHECKPOINT leaving' ? ['--leave-running'] : [];
        const how = { pauses: this.isPausedByShim, cgroup: this.#cgroup?.directory };
        return (await job.checkpointByShim(words, env, how)).exitCode === 0;
      }
      switch (this.flow.event) {
        case 'CREATE':
          return (await job.begin('create', env).status()) === 0;
        case 'RESTORE':
          return (await job.begin('restore', env, join(this.template.images, '1/checkpoint')).status()) === 0;
        case 'CHECKPOINT leaving':
          return (await job.checkpoint(['--leave-running'], env)).exitCode === 0;
        case 'CHECKPOINT':
          return (await job.checkpoint([], env)).exitCode === 0;
        case 'DELETE':
          return (await job.run(['delete', '--force'], env)).exitCode === 0;
        default:
          return (await job.run([this.flow.event.toLowerCase()], env)).exitCode === 0;
      }
    }

    async run(): Promise<string> {
      const { job } = this;
      const { fault, variant } = this.given;
      if (variant === ', out of memory') this.#cgroup = new MemoryCgroup(`${stack.namespace}-oom/${job.id}`);
      const asking = this.#ask();
      if (wordsOf(this.given).endsWith(':hang')) return this.#runcHangs(fault, asking);
      const answered = await asking;
      if (this.isAlone) await this.#isLeftAlone();
      return this.#goOn(answered, (words) => job.run(words));
    }

    /** Its runc does not begin. What becomes of it, of its wrapper, and of the guardian, the case says. */
    async #runcHangs(fault: Case['fault'], asking: Promise<boolean>): Promise<string> {
      const { job } = this;
      const ended = asking.then(() => 'ended' as const);
      const hanging = waitFor('runc to hang', () => job.hanging());
      hanging.catch(() => {});
      const pid = await Promise.race([ended, hanging]);
      expect(pid !== 'ended').toBe(callRunc.has(this.given.step));
      if (pid === 'ended') return '-';
      if (fault === 'hangs') return this.#isAnswered(asking);
      // Else it would end what is to hang on, or go on.
      if (fault.startsWith('no guardian') || fault === '... goes on') this.#killGuardian();
      if (fault === 'no guardian: goes on') {
        process.kill(pid, 'SIGCONT');
        expect(await asking).toBe(true);
        return this.#goOn(true, (words) => job.run(words));
      }
      await this.#killWrapper();
      if (fault === 'alone: hangs') {
        await this.#isLeftAlone();
        expect(await asking).toBe(false);
        return this.#goOn(false, (words) => job.run(words));
      }
      return this.#goOn(false, async (words) => {
        // A forced delete ends what hangs at once.
        const isPatient = fault === '... goes on' || words[0] === 'delete';
        const asked = job.run(words, isPatient ? {} : { TARDIS_LOCK_TIMEOUT_SECONDS: '1' });
        if (fault === '... goes on' && words[0] !== 'delete' && job.hanging()) {
          await waitFor('the next command to wait', () => job.isAwaited());
          process.kill(pid, 'SIGCONT');
        }
        const ran = await asked;
        // Only now: a caller that reads to the end hears of it when the orphan has ended, too.
        expect(await asking).toBe(false);
        return ran;
      });
    }

    /** The wrapper lives, and what it waits for does not get on. */
    async #isAnswered(asking: Promise<boolean>): Promise<string> {
      const { job } = this;
      const late = delay(answerMs, 'late' as const, { ref: false });
      const answered = await Promise.race([asking, late]);
      if (answered === 'late') throw new Error(`no answer in ${answerMs} ms`);
      expect(job.hanging()).toBeUndefined();
      expect(job.warnings().join('\n')).toMatch(
        /made no progress for [12] s \(freezeStallSeconds is 1\) in step \w+|runc gave no answer for 2 s .* and was killed/,
      );
      return this.#goOn(answered, (words) => job.run(words));
    }

    /** A job that is to run does, though nobody has sent a command, and nothing of its checkpoint is at work. */
    async #isLeftAlone(): Promise<void> {
      const { job } = this;
      const { step, fault } = this.given;
      expect(job.wrappers()).toEqual([]);
      // Its image is committed, and it was ended for that.
      const isEnded = step === 'endJob' && fault === 'alone: after';
      if (!isEnded) await job.countsOn(2, patienceMs);
      await waitFor('nothing to be at work', () => [...job.processes(), ...job.copies()].length === 0, {
        timeoutMs: patienceMs,
      });
      expect(await job.status()).toBe(isEnded ? 'gone' : 'running');
      await this.#cgroup?.remove();
    }

    #killGuardian(): void {
      const pid = this.job.guardian();
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
      // A restore has none, and neither has a command of the caller's.
      else expect(this.given.fault).toBe('... goes on');
    }

    async #killWrapper(): Promise<void> {
      const { job } = this;
      const cgroup = this.#cgroup;
      const isGroup = this.given.variant === ', its process group';
      for (const wrapper of cgroup ? [] : job.wrappers()) {
        if (isGroup) expect(leadsGroup(wrapper)).toBe(true);
        process.kill(isGroup ? -wrapper : wrapper, 'SIGKILL');
      }
      await waitFor('the wrapper to end', () => {
        cgroup?.tighten();
        return job.wrappers().length === 0;
      });
    }

    /** What a caller does next, and which of the three states the job is in then. */
    async #goOn(answered: boolean, next: (words: string[]) => Promise<unknown>): Promise<string> {
      const { job, flow } = this;
      if (flow.event === 'DELETE') {
        await next(['delete', '--force']);
        expect(await job.leftovers()).toEqual([]);
        return 'gone';
      }
      if (this.isBeginning) {
        const isUsed = answered || this.given.fault === 'killed after' || this.given.fault === '... goes on';
        if (isUsed) await next(flow.event === 'RESTORE' ? ['resume'] : ['start']);
        if (isUsed && (await job.status()) === 'running') return this.#runsOn();
        expect(answered).toBe(false);
        await next(['delete', '--force']);
        // A rollback that failed is kept for the next create in this bundle.
        const isPending = job.rollbacks().length > 0;
        expect(isPending && !this.isRollbackSpoilt).toBe(false);
        expect(await job.leftovers()).toEqual(job.rollbacks());
        if (!isPending) expect(await rootfsListing(join(job.bundle, 'rootfs'))).toEqual(this.#pristine);
        // The same id and bundle once more.
        expect(await job.begin('create').status()).toBe(0);
        await job.start();
        await this.#runsOn();
        return flow.hasImage ? 'not created; then resumes' : 'not created; then starts';
      }
      const [word] = flow.event === 'START' ? ['start'] : ['resume'];
      const asked = await next([word]);
      const status = await job.status();
      if (status === 'gone') return this.#resumesElsewhere();
      expect(status).toBe('running');
      // The engine has paused it, and takes it for paused still.
      if (this.isPausedByShim) expect(asked).toMatchObject({ exitCode: 0 });
      return this.#runsOn();
    }

    async #runsOn(): Promise<string> {
      const { job, flow } = this;
      await job.countsOn();
      const litter = await job.litter();
      expect(litter).toEqual(this.isClearingSpoilt ? ['image 2.partial'] : []);
      const expected = flow.hasImage || flow.event === 'RESTORE' ? this.template.last + 1 : 1;
      const image = await job.currentImage();
      let outcome = image > 1 ? `runs on, image ${image}` : 'runs on';
      if (expected > 1) outcome = job.ticks[0] === 1 ? 'afresh' : 'resumes';
      if (outcome === 'afresh') expect(job.warnings()).not.toEqual([]);
      else expect(job.ticks[0]).toBe(expected);
      if (flow.event.startsWith('CHECKPOINT') && image === 1 && existsSync(job.imagePath)) {
        expect(readdirSync(job.imagePath)).toEqual([]);
      }
      await job.run(['delete', '--force']);
      expect(await job.leftovers()).toEqual(litter);
      return outcome;
    }

    async #resumesElsewhere(): Promise<string> {
      const { job } = this;
      expect(await job.currentImage()).toBe(2);
      await job.run(['delete', '--force']);
      expect(await job.leftovers()).toEqual([]);
      const after = await CrashJob.make(stack, runc, `${job.id}-next`, { imagesOf: job.id });
      expect(await after.begin('create').status()).toBe(0);
      await after.start();
      await after.countsOn();
      expect(after.ticks[0]).toBe(job.ticks.length + 1);
      await after.run(['delete', '--force']);
      expect(await after.leftovers()).toEqual([]);
      return 'resumes elsewhere';
    }
  }
});

/** Lets so many run at once; the others wait for their turn. */
function turns(atOnce: number): (work: () => Promise<void>) => Promise<void> {
  const waiting: (() => void)[] = [];
  let working = 0;
  return async (work) => {
    if (working >= atOnce) await new Promise<void>((resolve) => waiting.push(resolve));
    else working += 1;
    try {
      await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else working -= 1;
    }
  };
}
