import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { indexEntryOf } from '../../src/actions/container-index.ts';
import { type Entry, readLedger } from '../../src/actions/ledger.ts';
import { namesIn, textOf } from '../../src/actions/read-or-nothing.ts';
import { isInitAlive, type RuncRecord, readRuncRecord } from '../../src/actions/runc-state.ts';
import { readState, type StateRecord, stateFileOf } from '../../src/actions/state-file.ts';
import { pathOf } from '../../src/machines/paths.ts';
import type { Life } from '../../src/machines/vocabulary.ts';
import type { Container } from './engine.ts';
import { ctrContainer, isOpen } from './engine-ctr.ts';
import { freshDirectory } from './fresh-directory.ts';
import { wordsOf } from './proc.ts';
import { mountsUnder } from './sweep.ts';
import { type TortureHost, type TortureHosts, takeoverMs, victimsOf } from './torture-hosts.ts';
import { type JobKind, readOutput, specOf, tickMs, type Written } from './torture-jobs.ts';
import { type Asked, Oracle, type Said } from './torture-oracle.ts';
import { type Blow, type JobSignal, type Side, type Step, sides } from './torture-schedule.ts';
import { waitFor } from './wait.ts';

/** How long any command of an engine may take. */
const answerMs = 90_000;
/** How long a job that is to run may stand still, on a loaded host. */
const standstillMs = 15_000;
/** How many containers of one job there are at once. */
const mostContainers = 3;

/** By what a delete may fail, or fail to note the end of a life. */
const disturbsDelete = ['frozen', 'full', 'wrapper', 'runc', 'shim', 'caller', 'containerd'] as const;

/** A container that was created and not deleted yet. */
type Held = {
  id: string;
  host: TortureHost;
  container: Container;
  /** Where its task's output is. */
  log: string;
  /** Its init, as long as runc has a record of it. */
  init: RuncRecord | undefined;
  isPaused: boolean;
  /** Whether its engine takes it for paused though it runs: a resume of its own was cut short. */
  isShownPaused: boolean;
  /** How its job has ended, or will have when it is deleted, as far as anything was done to it. */
  end: 'done' | 'doubtful' | 'killed' | undefined;
  /** Whether its log lacks what it wrote last: nobody copies that who was killed. */
  isLogCut: boolean;
  /** What its job may find in its file where it begins from scratch; anything where that is not known. */
  mayFind: readonly string[] | undefined;
};

/** What a lane finds wrong. */
export type Found = (what: string) => void;

/** One job: goes through its steps, and asks its oracle about every answer. */
export class Lane {
  readonly key: string;
  readonly #kind: JobKind;
  readonly #world: TortureHosts;
  readonly #oracle: Oracle;
  readonly #report: Found;
  readonly #held: Held[] = [];
  readonly #images = new Set<string>();
  #count = 0;
  /** Containers that could not be created. */
  readonly #unborn: { id: string; host: TortureHost }[] = [];
  /** How often each kind of step was done, and how often a blow has hit. */
  readonly done = new Map<string, number>();

  constructor(world: TortureHosts, key: string, kind: JobKind, report: Found) {
    this.key = key;
    this.#kind = kind;
    this.#world = world;
    this.#report = report;
    const { troubles } = world;
    this.#oracle = new Oracle(key, {
      troubles,
      takeoverMs,
      ...(kind.resumesAlways ? { resumesAlways: true } : {}),
    });
  }

  get oracle(): Oracle {
    return this.#oracle;
  }

  get home(): string {
    return join(this.#world.images, this.key);
  }

  /**
   * By what one tells what may be left of containers that could not be created, as with plain runc: of one that was to begin
   * from scratch, or was there already when its engine forgot it, everything; of one that was to be restored, what was saved of a root file system that its engine has
   * unmounted.
   */
  spared(on: TortureHost): string[] {
    const log = textOf(on.stack.logFile).split('\n');
    return this.#unborn
      .filter(({ host }) => host === on)
      .flatMap(({ id }) => {
        const own = log.filter((line) => line.includes(`"id":"${id}"`));
        const isRestored =
          own.some((line) => line.includes('alive.restoring')) &&
          !own.some((line) => line.includes('"alive.restored"'));
        const { bundle } = ctrContainer(on.stack, id, '');
        const name = createHash('sha256').update(bundle).digest('hex').slice(0, 16);
        return [`/rollback/${name}/`, ...(isRestored ? [] : [`/${id}/`])];
      });
  }

  #find = (wrong: readonly string[]): void => {
    for (const words of wrong) this.#report(words);
  };

  #note(what: string): void {
    this.done.set(what, (this.done.get(what) ?? 0) + 1);
  }

  #ledger(): readonly Entry[] {
    const { entries } = readLedger(this.home);
    this.#find(this.#oracle.seen(entries));
    return entries;
  }

  /** Looks at the ledger, as somebody who does nothing else. */
  watch(): void {
    this.#ledger();
  }

  /** Whether the step was one: there may be no container that it could be done to. */
  async take(step: Step): Promise<void> {
    const did = await this.#do(step);
    if (did)
      this.#note(
        step.op === 'checkpoint' ? `checkpoint ${step.exit ? 'with exit' : 'left running'}` : step.op,
      );
  }

  async #do(step: Step): Promise<boolean> {
    if (step.op === 'rest') {
      await delay(step.ms);
      return true;
    }
    if (step.op === 'create') {
      await this.#create([step.on], step.blow);
      return true;
    }
    if (step.op === 'race') {
      await this.#create(Array.from({ length: step.creates }, (_, i) => sides[i % 2] as Side));
      return true;
    }
    const held = this.#held.at(-1 - Math.min(step.which, this.#held.length - 1));
    if (!held) return false;
    switch (step.op) {
      case 'checkpoint':
        return this.#checkpoint(held, step.exit, step.blow, step.signal);
      case 'signal':
        return this.#signal(held, step.signal);
      case 'murder':
        return this.#murder(held);
      case 'shim':
        return this.#killShim(held);
      case 'pause':
        return this.#pause(held);
      case 'resume':
        return this.#resume(held);
      case 'delete':
        return this.#delete(held, step.force, step.blow);
      case 'restart':
        return this.#restart(held);
    }
  }

  async #asked<Result>(
    { id, host }: { id: string; host: TortureHost },
    act: () => Promise<Result>,
  ): Promise<{ asked: Asked; result: Result }> {
    await host.engine();
    const from = Date.now();
    const result = await act();
    const asked = { id, on: host.side, from, to: Date.now() };
    if (asked.to - from > answerMs)
      this.#report(`${id} on ${host.side}: a command took ${asked.to - from} ms`);
    return { asked, result };
  }

  /** Kills whom a blow is for, while `work` is under way. */
  async #under<Result>(
    { id, host }: { id: string; host: TortureHost },
    blow: Blow | undefined,
    work: Promise<Result>,
  ): Promise<Result> {
    if (!blow) return work;
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    work.then(over, over);
    // containerd is hit while a wrapper works.
    const first = blow.victim === 'containerd' ? 'wrapper' : blow.victim;
    while (!isOver && victimsOf(host, first, id).length === 0) await delay(30);
    if (!isOver) await delay(blow.afterMs);
    const pids = victimsOf(host, first, id);
    if (pids.length === 0) return work;
    this.#note(`kill -9 of ${blow.victim}`);
    if (blow.victim === 'containerd') {
      const [result] = await Promise.all([work, host.loseEngine(200)]);
      return result;
    }
    const now = Date.now();
    const trouble = this.#world.troubles.add({ kind: blow.victim, on: host.side, id, from: now, to: now });
    for (const pid of pids) kill(pid);
    if (blow.victim === 'shim') this.#cut(id, host);
    // What was hit is met for as long as the command that it worked for.
    await work.finally(() => {
      trouble.to = Date.now();
    });
    return work;
  }

  #cut(id: string, host: TortureHost): void {
    for (const held of this.#held) if (held.id === id && held.host === host) held.isLogCut = true;
  }

  async #create(on: readonly Side[], blow?: Blow): Promise<void> {
    while (this.#held.length + on.length > mostContainers && this.#held.length > 0)
      await this.#delete(this.#held[0] as Held, true);
    const births = await Promise.all(
      on.map(async (side) => {
        const host = this.#world.hosts[side];
        this.#count += 1;
        const id = `${this.key}-${this.#count}`;
        const { args, env } = specOf(this.#kind, this.key);
        const settings = Object.entries(env).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
        const words = ['--runc-binary', host.stack.runtime, ...settings, host.image, id, ...args];
        return this.#begin({
          id,
          host,
          blow,
          mayFind: ['nothing'],
          words: (uri) => ['run', '--detach', '--log-uri', uri, ...words],
        });
      }),
    );
    // The first to take the job up is told of first.
    for (const born of births.toSorted((one, other) => (one.epoch ?? 0) - (other.epoch ?? 0))) born.tell();
  }

  /** Has the engine begin a task; what there is to tell of it. */
  async #begin({
    id,
    host,
    words,
    blow,
    mayFind,
  }: {
    id: string;
    host: TortureHost;
    /** What ctr is given, with where the output shall go. */
    words: (uri: string) => string[];
    blow?: Blow | undefined;
    mayFind: readonly string[] | undefined;
  }): Promise<{ epoch: number | undefined; tell: () => void }> {
    const { logFile, dir } = host.stack;
    const log = join(freshDirectory(join(dir, 'output'), id), 'log');
    const offset = existsSync(logFile) ? statSync(logFile).size : 0;
    const { asked, result } = await this.#asked({ id, host }, () =>
      this.#under(
        { id, host },
        blow,
        host.stack.ctr(words(`file://${log}`), { mayFail: true, timeoutMs: answerMs }),
      ),
    );
    for (const held of this.#held)
      if (!isAlive(held)) this.#oracle.ended({ id: held.id, on: held.host.side }, asked.to);
    if (result.exitCode !== 0 && (await host.statusOf(id)) !== 'running') {
      await this.#clear({ id, host });
      const answer = result.stderr.trim().split('\n').slice(-2).join(' ');
      const unborn = { ...asked, to: Date.now() };
      this.#unborn.push({ id, host });
      return { epoch: undefined, tell: () => this.#find(this.#oracle.unborn(unborn, answer)) };
    }
    const held: Held = {
      ...{ id, host, log, mayFind },
      container: ctrContainer(host.stack, id, log),
      init: readRuncRecord({ root: host.runcRoot, id }),
      isPaused: false,
      isShownPaused: false,
      end: undefined,
      isLogCut: false,
    };
    this.#held.push(held);
    if (blow?.victim === 'shim') this.#cut(id, host);
    const { epoch, generation } = birthIn(stateOf(held));
    const hasWritten = () => {
      const { numbers, isDone, isStopped } = this.#written(held);
      return numbers.length > 0 || isDone || isStopped || !isAlive(held);
    };
    await waitFor(`${id} to count`, hasWritten, { timeoutMs: standstillMs }).catch(() => {
      this.#report(`${id} on ${host.side}: it was started and does not count\n${this.#stateWords(held)}`);
    });
    const { numbers, found } = this.#written(held);
    const warnings = warningsIn(Buffer.from(textOf(logFile)).subarray(offset).toString(), id);
    return {
      epoch,
      tell: () => {
        this.#find(this.#oracle.born({ ...asked, first: numbers[0], generation, epoch, warnings }));
        if (generation === undefined) this.#checkFound(held, found);
      },
    };
  }

  /** Whether a job that began from scratch has found its root file system as it must be. */
  #checkFound({ id, host, mayFind }: Held, found: string | undefined): void {
    if (found === undefined || mayFind === undefined || mayFind.includes(found)) return;
    this.#report(
      `${id} on ${host.side}: it began from scratch in a root file system with ${found} in its file, expected ${mayFind.join(' or ')}`,
    );
  }

  #written = ({ container }: Held): Written => readOutput(container.lines());

  /** Waits until a shim has copied all that a job has written that is gone now. */
  async #isWritten({ id, host, log, isLogCut }: Held): Promise<void> {
    if (isLogCut) return;
    await waitFor('its log to be closed', () => !isOpen(log), { timeoutMs: standstillMs }).catch(() =>
      this.#report(`${id} on ${host.side}: its job is gone, and its log is open still`),
    );
  }

  /** What one would want to know of a container that stands still. */
  #stateWords(held: Held): string {
    const { id, host, init } = held;
    const freezer = init?.freezer?.directory;
    const frozen = freezer
      ? textOf(join(freezer, 'freezer.state')) || textOf(join(freezer, 'cgroup.freeze'))
      : '';
    const state = stateOf(held);
    return [
      `  freezer ${frozen.trim()}, state ${JSON.stringify(state?.snapshot.value)}, init ${init?.pid} ${isAlive(held) ? 'lives' : 'is gone'}`,
      ...(['wrapper', 'runc', 'criu', 'guardian', 'shim'] as const).flatMap((victim) =>
        victimsOf(host, victim, id).map((pid) => `  ${victim} ${pid}: ${wordsOf(pid).join(' ').slice(-200)}`),
      ),
    ].join('\n');
  }

  /** Waits until nobody works on a container any more. */
  async #rests(held: { id: string; host: TortureHost }): Promise<void> {
    const { id, host } = held;
    const busy = () =>
      (['wrapper', 'criu', 'guardian'] as const).flatMap((victim) => victimsOf(host, victim, id));
    try {
      for (let quiet = 0; quiet < 2; quiet++) {
        await waitFor('it to rest', () => busy().length === 0, { timeoutMs: answerMs, everyMs: 50 });
        await delay(100);
      }
    } catch {
      const who = busy().map((pid) => `${pid} ${wordsOf(pid).slice(-6).join(' ')}`);
      this.#report(`${id} on ${host.side}: somebody works on it for ${answerMs} ms: ${who.join('; ')}`);
    }
  }

  /** That a job which is to run does; whether it does. */
  async #advances(held: Held, timeoutMs = standstillMs): Promise<boolean> {
    const at = this.#written(held).numbers.length;
    try {
      await waitFor('it to count on', () => this.#written(held).numbers.length > at || !isAlive(held), {
        timeoutMs,
        everyMs: 50,
      });
      return true;
    } catch {
      return false;
    }
  }

  async #checkpoint(
    held: Held,
    exit: boolean,
    blow: Blow | undefined,
    signal: JobSignal | undefined,
  ): Promise<boolean> {
    const { host, container } = held;
    if (!isAlive(held) || this.#written(held).numbers.length === 0) return false;
    const wasPaused = held.isPaused;
    const low = this.#written(held).numbers.at(-1) ?? 0;
    const { asked, result } = await this.#asked(held, () => {
      const asking = container.checkpoint({ exit, mayFail: true, timeoutMs: answerMs });
      const signalled = signal ? this.#send(held, signal) : undefined;
      return this.#under(
        held,
        blow,
        asking.then(async (ran) => {
          await signalled;
          return ran;
        }),
      );
    });
    await host.engine();
    await this.#rests(held);
    const isLost = await this.#isLost(held, { asked, wasPaused });
    const epoch = epochOf(held, this.#ledger()) ?? birthIn(stateOf(held)).epoch;
    const generation = this.#newImage(epoch);
    const alive = isAlive(held);
    if (!alive) await this.#isWritten(held);
    const last = this.#written(held).numbers.at(-1) ?? low;
    const isExact = exit && !alive && !held.isLogCut;
    // What was written while it was dumped may not be in the log yet; what a killed shim had to copy never will.
    const slack = held.isLogCut ? Math.ceil((asked.to - asked.from) / tickMs) + 3 : 2;
    this.#find(
      this.#oracle.checkpointed({
        ...asked,
        exit,
        succeeded: result.exitCode === 0,
        answer: `${result.stderr}\n${result.stdout}`.trim().split('\n')[0] ?? '',
        wasPaused,
        low: isExact ? last : low,
        high: isExact ? last : last + slack,
        generation,
        epoch,
        isAlive: alive,
        isDone: this.#written(held).isDone,
      }),
    );
    if (!alive) held.end ??= generation !== undefined && exit ? 'killed' : 'doubtful';
    if (isLost) this.#report(isLost);
    this.#checkWritten(held);
    return true;
  }

  /** What is wrong with a job that stands still after a checkpoint, if it does. An engine that was hit may have left it paused. */
  async #isLost(
    held: Held,
    { asked, wasPaused }: { asked: Asked; wasPaused: boolean },
  ): Promise<string | undefined> {
    const { id, host, container } = held;
    if (wasPaused || !isAlive(held)) return undefined;
    const advances = await this.#advances(held);
    const state = this.#stateWords(held);
    const isPausing = pathOf(stateOf(held)?.snapshot.value) === 'alive.pausing';
    const isEngineHit = this.#world.troubles.met(
      ['containerd', 'caller', 'shim', ...(isPausing ? (['wrapper', 'runc'] as const) : [])],
      asked,
    );
    // A pause that was never answered stands until the next command: the engine takes the task for running.
    if (!advances && isEngineHit) await container.pause().catch(() => {});
    const status = await host.statusOf(id);
    if (!advances && !(isEngineHit && status === 'paused'))
      return `${id} on ${host.side}: it stands still after a checkpoint, and is ${status}\n${state}`;
    if (status !== 'paused') return undefined;
    if (!isEngineHit)
      return `${id} on ${host.side}: the engine takes it for paused after a checkpoint\n${state}`;
    await container.resume().catch(() => {});
    if (await this.#advances(held)) return undefined;
    return `${id} on ${host.side}: it stands still though it was resumed after a checkpoint\n${this.#stateWords(held)}`;
  }

  /** An image of an epoch that the ledger did not have before. */
  #newImage(epoch: number | undefined): number | undefined {
    let found: number | undefined;
    for (const entry of this.#ledger()) {
      if (entry.kind !== 'image' || this.#images.has(`${entry.number} ${entry.at}`)) continue;
      this.#images.add(`${entry.number} ${entry.at}`);
      if (entry.epoch === epoch) found = entry.generation;
      else
        this.#report(
          `${this.key}: generation ${entry.generation} is of epoch ${entry.epoch}, nobody was asked for it`,
        );
    }
    return found;
  }

  #checkWritten(held: Held): void {
    const { id, host } = held;
    for (const line of this.#written(held).broken) this.#report(`${id} on ${host.side}: ${line}`);
  }

  /** Sends a signal through the engine, and notes what it means for the job. */
  async #send(held: Held, signal: JobSignal): Promise<void> {
    const { id, host, container } = held;
    const ends = signal === 'KILL' || (signal === 'TERM' && this.#kind.endsAtTerm === true);
    const now = Date.now();
    const trouble = ends
      ? this.#world.troubles.add({
          kind: 'signal',
          on: host.side,
          id,
          from: now,
          to: Number.POSITIVE_INFINITY,
        })
      : undefined;
    const wasAlive = isAlive(held);
    const sent = await container.kill(signal).then(
      () => true,
      () => false,
    );
    // One that ends by itself in the same moment may count as either.
    if (ends && wasAlive) held.end = sent && !this.#written(held).isDone ? 'killed' : 'doubtful';
    // A signal that could not be sent may have been sent all the same.
    if (trouble && !sent) trouble.to = Date.now();
  }

  async #signal(held: Held, signal: JobSignal): Promise<boolean> {
    if (!isAlive(held)) return false;
    if (held.isPaused) await this.#resume(held);
    await held.host.engine();
    await this.#send(held, signal);
    if (held.end === 'killed') await this.#ends(held, `SIG${signal}`);
    return true;
  }

  async #ends(held: Held, by: string): Promise<void> {
    const { id, host } = held;
    try {
      await waitFor('it to end', () => !isAlive(held), { timeoutMs: standstillMs });
      this.#oracle.ended({ id, on: host.side }, Date.now());
    } catch {
      this.#report(`${id} on ${host.side}: it lives after ${by}\n${this.#stateWords(held)}`);
    }
  }

  async #murder(held: Held): Promise<boolean> {
    if (!isAlive(held) || !held.init || held.isPaused) return false;
    const { id, host } = held;
    const now = Date.now();
    this.#world.troubles.add({ kind: 'murder', on: host.side, id, from: now, to: Number.POSITIVE_INFINITY });
    held.end = 'doubtful';
    kill(held.init.pid);
    await this.#ends(held, 'kill -9');
    return true;
  }

  async #killShim(held: Held): Promise<boolean> {
    const { id, host } = held;
    const pids = victimsOf(host, 'shim', id);
    if (pids.length === 0) return false;
    const now = Date.now();
    this.#world.troubles.add({ kind: 'shim', on: host.side, id, from: now, to: Number.POSITIVE_INFINITY });
    held.isLogCut = true;
    held.end = 'doubtful';
    await host.engine();
    for (const pid of pids) kill(pid);
    // containerd ends what the shim had, by a delete that has the runtime's.
    await this.#ends(held, 'the end of its shim');
    await this.#rests(held);
    // A job whose pipes have no reader any more may have ended by itself first.
    this.#oracle.mayHaveFinished(held.id, host.side);
    return true;
  }

  async #pause(held: Held): Promise<boolean> {
    if (!isAlive(held) || held.isPaused || held.isShownPaused) return false;
    await held.host.engine();
    const { asked } = await this.#asked(held, () => held.container.pause().catch(() => {}));
    held.isPaused = (await held.host.statusOf(held.id)) === 'paused';
    if (held.isPaused || !isAlive(held)) return true;
    if (!this.#world.troubles.met(['containerd', 'shim'], asked))
      this.#report(`${held.id} on ${held.host.side}: it cannot be paused`);
    return true;
  }

  async #resume(held: Held): Promise<boolean> {
    if (!held.isPaused) return false;
    await waitFor(
      'it to be resumed',
      async () => {
        await held.host.engine();
        await held.container.resume().catch(() => {});
        return !isAlive(held) || (await held.host.statusOf(held.id)) !== 'paused';
      },
      { timeoutMs: answerMs, everyMs: 500 },
    ).catch((error: Error) => this.#report(`${held.id} on ${held.host.side}: ${error.message}`));
    held.isPaused = false;
    if (!(await this.#advances(held)))
      this.#report(
        `${held.id} on ${held.host.side}: it stands still after a resume\n${this.#stateWords(held)}`,
      );
    return true;
  }

  /** Whether a job's end is known, and how Tardis is to see it; reports one that nobody has brought about. */
  #endOf(held: Held): 'done' | 'doubtful' | 'killed' {
    const { id, host } = held;
    if (isAlive(held)) return 'killed';
    if (held.end) return held.end;
    if (this.#written(held).isDone) return 'done';
    if (!this.#world.troubles.met(['shim', 'criu', 'runc'], { id, on: host.side, from: 0, to: Date.now() }))
      this.#report(
        `${id} on ${host.side}: its job has ended, and nobody has ended it\n${this.#stateWords(held)}`,
      );
    return 'doubtful';
  }

  async #delete(held: Held, force: boolean, blow?: Blow): Promise<boolean> {
    const { id, host, container } = held;
    const wasAlive = isAlive(held);
    if (!force && wasAlive) return false;
    this.#held.splice(this.#held.indexOf(held), 1);
    const { asked, result } = await this.#asked(held, () =>
      this.#under(held, blow, this.#remove(host, id, force)),
    );
    const isClean = !this.#world.troubles.met(disturbsDelete, asked);
    if (result !== undefined) {
      if (isClean) this.#report(`${id} on ${host.side}: it cannot be deleted: ${result}`);
      await this.#clear({ id, host });
    }
    // One that ends by itself in the same moment may count as either.
    const end = wasAlive && this.#written(held).isDone ? 'doubtful' : this.#endOfDeleted(held, wasAlive);
    this.#checkWritten(held);
    // What was left to containerd to delete may have met anything.
    const isNoted = isClean && result === undefined && !held.isLogCut;
    this.#oracle.deleted({ ...asked, to: Date.now() }, end, isNoted);
    if (isNoted) await this.#leavesNothing(held, container);
    return true;
  }

  #endOfDeleted(held: Held, wasAlive: boolean): 'done' | 'doubtful' | 'killed' {
    return wasAlive ? (held.end === 'doubtful' ? 'doubtful' : 'killed') : this.#endOf(held);
  }

  /** Has the engine delete a container; what it says where that fails. */
  async #remove({ stack }: TortureHost, id: string, force: boolean): Promise<string | undefined> {
    const options = { mayFail: true, timeoutMs: answerMs };
    await stack.ctr(['tasks', 'delete', ...(force ? ['--force'] : []), id], options);
    const { exitCode, stderr } = await stack.ctr(['containers', 'delete', id], options);
    return exitCode === 0 || / not found/.test(stderr) ? undefined : stderr;
  }

  /** That nothing is left of a container that was deleted. */
  async #leavesNothing(
    { id, host }: { id: string; host: TortureHost },
    { bundle }: { bundle: string },
  ): Promise<void> {
    const { runcRoot, stack } = host;
    const look = (): string[] => [
      ...[
        join(runcRoot, id),
        indexEntryOf(stack.runDir, runcRoot, id),
        join(stack.runDir, 'locks', runcRoot, id),
        ...['', ...namesIn('/sys/fs/cgroup')].map((name) =>
          join('/sys/fs/cgroup', name, stack.namespace, id),
        ),
      ].filter(existsSync),
      ...mountsUnder(bundle),
      ...(['wrapper', 'runc', 'criu', 'guardian'] as const).flatMap((victim) =>
        victimsOf(host, victim, id).map((pid) => `${victim} ${pid}`),
      ),
    ];
    await waitFor('it to leave nothing', () => look().length === 0, { timeoutMs: standstillMs }).catch(() =>
      this.#report(`${id} on ${host.side}: it was deleted and has left ${look().join(', ')}`),
    );
  }

  /** Deletes what could not be created, or deleted, until it is gone. */
  async #clear({ id, host }: { id: string; host: TortureHost }): Promise<void> {
    const isGone = async (): Promise<boolean> => {
      await host.engine();
      return (await this.#remove(host, id, true)) === undefined;
    };
    await waitFor(`${id} to be deleted`, isGone, { timeoutMs: answerMs, everyMs: 500 }).catch(
      (error: Error) => this.#report(`${id} on ${host.side}: ${error.message}`),
    );
  }

  /** Begins the task of a stopped container once more: another life, on the root file system of the one before. */
  async #restart(held: Held): Promise<boolean> {
    const { id, host } = held;
    if (isAlive(held)) return false;
    const { ctr } = host.stack;
    await this.#isWritten(held);
    const end = this.#endOf(held);
    const options = { mayFail: true, timeoutMs: answerMs };
    const { asked } = await this.#asked(held, () => ctr(['tasks', 'delete', '--force', id], options));
    const isClean = !this.#world.troubles.met(disturbsDelete, asked);
    this.#oracle.deleted(asked, end, isClean && !held.isLogCut);
    this.#held.splice(this.#held.indexOf(held), 1);
    const last = held.isLogCut ? undefined : this.#written(held).numbers.at(-1);
    // The last line of one that was killed may be lost: containerd 1.6 closes its log at the end of the first stream.
    const mayFind = last === undefined ? undefined : [last, last + 1, last + 2].map(String);
    const words = (uri: string): string[] => ['tasks', 'start', '--detach', '--log-uri', uri, id];
    const { tell } = await this.#begin({ id, host, words, mayFind });
    tell();
    return true;
  }

  /**
   * The end of a round, when nothing is wrong with the hosts any more: every job runs that is to run, can be deleted, and
   * is carried on once more on both hosts. Nothing is left then.
   */
  async settle(): Promise<void> {
    for (const held of [...this.#held]) {
      await this.#rests(held);
      if (held.isPaused) await this.#resume(held);
      if (isAlive(held) && !(await this.#advances(held)))
        this.#report(
          `${held.id} on ${held.host.side}: it stands still at the end\n${this.#stateWords(held)}`,
        );
      this.#checkWritten(held);
    }
    for (const held of [...this.#held]) await this.#delete(held, true);
    // Ends that could not be noted: who was on the other host counts as lost by then.
    await delay(takeoverMs + 500);
    for (const side of sides) {
      await this.#create([side]);
      const held = this.#held.at(-1);
      if (held && isAlive(held)) await this.#checkpoint(held, true, undefined, undefined);
      for (const each of [...this.#held]) await this.#delete(each, true);
    }
    const strays = namesIn(this.home).filter(
      (name) => !/^(\d+|\d+\.failed\.jsonl|current|ledger)$/.test(name),
    );
    if (strays.length > 0) this.#report(`${this.key}: ${strays.join(', ')} are left beside its images`);
  }
}

const stateOf = ({ container }: Held): StateRecord | undefined => {
  try {
    return readState(stateFileOf(container.bundle));
  } catch {
    return undefined;
  }
};

/** What a state file says of how a container began, and of its epoch now. */
function birthIn(state: StateRecord | undefined): {
  epoch: number | undefined;
  generation: number | undefined;
} {
  const { life, image } = (state?.snapshot.context ?? {}) as { life?: Life; image?: { generation: number } };
  const isRestored = state?.history.some(({ to }) => to === 'alive.restored') === true;
  return {
    epoch: life && 'epoch' in life ? life.epoch : undefined,
    generation: isRestored ? image?.generation : undefined,
  };
}

/** The epoch in which a container has taken the job up last, as the ledger says. */
const epochOf = ({ id, host }: Held, entries: readonly Entry[]): number | undefined =>
  entries.findLast(
    (entry) => entry.kind === 'life' && entry.claimant.id === id && entry.claimant.host === host.side,
  )?.number;

/** Whether a container's init is there. */
const isAlive = (held: Held): boolean => held.init !== undefined && isInitAlive(held.init);

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}

/** What a part of Tardis's log says of a container, from warnings on. */
function warningsIn(text: string, id: string): Said[] {
  return text.split('\n').flatMap((line) => {
    if (!line.includes(`"${id}"`)) return [];
    try {
      const said = JSON.parse(line) as { id: string; level: string; msg: string; failure?: { code: string } };
      return said.id === id && said.level !== 'info' ? [{ msg: said.msg, code: said.failure?.code }] : [];
    } catch {
      return [];
    }
  });
}
