import { setTimeout as delay } from 'node:timers/promises';
import { type Guardian, silenceSeconds } from './guardian.ts';
import type { Host } from './host.ts';
import { endTrees } from './orphans.ts';
import { Problem } from './problem.ts';
import { descendantsOf } from './processes.ts';
import type { Progress } from './progress.ts';
import { spoilCriu } from './spoil-criu.ts';

/** How often a watch looks. */
const everyMs = 1_000;

/** How long what was killed may take to end; a program that sleeps in the kernel never does. */
const endingMs = 2_000;

export interface WatchOptions {
  readonly progress: Progress;
  readonly guardian?: Guardian;
  /** What is watched, as the subject of a sentence: `the dump`. */
  readonly subject: string;
  /** How long the whole may take. */
  readonly maxSeconds: number;
  /** Lets the job go on, or makes it one that can be ended: called right after the programs were killed. */
  readonly release: () => string;
}

/**
 * Bounds the time that a job is frozen, or waits for its restore: where there is no progress for `freezeStallSeconds`, or
 * the whole takes longer than it may, the programs that work for the wrapper are killed with all their descendants.
 */
export class Watch {
  readonly #host: Host;
  readonly #options: WatchOptions;
  readonly #began = performance.now();
  readonly #timer: NodeJS.Timeout;
  #progressAt = performance.now();
  #step = '';
  #log: (() => string | undefined) | undefined;
  /** The limit that was reached, as long as a CRIU is given a moment to let go of the job's tasks. */
  #due: { readonly code: string; readonly words: string; readonly line: string | undefined } | undefined;
  #struck: Problem | undefined;
  #onStrike: ((problem: Problem) => void)[] = [];

  constructor(host: Host, options: WatchOptions) {
    this.#host = host;
    this.#options = options;
    this.#timer = setInterval(() => this.#look(), everyMs);
  }

  get progress(): Progress {
    return this.#options.progress;
  }

  get guardian(): Guardian | undefined {
    return this.#options.guardian;
  }

  /**
   * Does one step, for no longer than the limits allow.
   *
   * @throws Problem `stalled` or `too-long`, at once also for a step after the one in which a limit was reached.
   */
  async bound<Result>(step: string, effect: () => Result | Promise<Result>): Promise<Result> {
    // A step may have come to its end all the same. Whoever goes on is killed ten seconds after the strike.
    if (await this.#options.guardian?.hasStruck()) throw this.#asleep();
    this.#strikeIfDue();
    if (this.#struck) throw this.#struck;
    this.#step = step;
    this.#log = undefined;
    let strike: (problem: Problem) => void = () => {};
    const struck = new Promise<never>((_, reject) => {
      strike = reject;
    });
    struck.catch(() => {});
    this.#onStrike.push(strike);
    const work = Promise.resolve().then(effect);
    // Killed programs end, and the step with them; it must not run beside what undoes it, unless it cannot end.
    work.catch(() => {});
    try {
      return await Promise.race([work, struck]);
    } catch (error) {
      if (await this.#options.guardian?.hasStruck()) throw this.#asleep();
      this.#strikeIfDue();
      if (!this.#struck) throw error;
      await Promise.race([work.catch(() => {}), delay(endingMs, undefined, { ref: false })]);
      throw this.#struck;
    } finally {
      this.#onStrike = this.#onStrike.filter((other) => other !== strike);
    }
  }

  /** The limit that was reached, if one was. */
  get struck(): Problem | undefined {
    return this.#struck;
  }

  /** Where to look for how far CRIU got, from now on until the step ends. */
  tells(lastLine: () => string | undefined): void {
    this.#log = lastLine;
  }

  /** Nothing is watched any more, and no guardian is left. May be called twice. */
  async end(): Promise<void> {
    clearInterval(this.#timer);
    await this.#options.guardian?.dismiss();
  }

  #asleep(): Problem {
    const { subject, release } = this.#options;
    const seconds = silenceSeconds(this.#host.config);
    return new Problem(
      'stalled',
      `${subject} slept in the kernel for ${seconds} s (freezeStallSeconds) in step ${this.#step}, as on a file server ` +
        `that does not answer; its guardian ended it, ${release()}`,
    );
  }

  #look(): void {
    const now = performance.now();
    this.#options.guardian?.beat();
    if (this.#struck) return;
    this.#strikeIfDue();
    if (this.#struck) return;
    if (this.#options.progress.seen()) this.#progressAt = now;
    const { freezeStallSeconds } = this.#host.config;
    const { subject, maxSeconds } = this.#options;
    const still = (now - this.#progressAt) / 1000;
    const whole = (now - this.#began) / 1000;
    if (still >= freezeStallSeconds) {
      const words = `${subject} made no progress for ${still.toFixed(0)} s (freezeStallSeconds is ${freezeStallSeconds})`;
      this.#due = { code: 'stalled', words, line: this.#log?.() };
    } else if (whole >= maxSeconds) {
      const words = `${subject} took ${whole.toFixed(0)} s, ${maxSeconds.toFixed(0)} are allowed (maxFreezeSeconds, and more for each GiB of memory)`;
      this.#due = { code: 'too-long', words, line: this.#log?.() };
    } else return;
    // It has until the next look. One that restores holds no job yet.
    const holdsJob = this.#options.guardian !== undefined;
    if (!holdsJob || !spoilCriu(this.#programs())) this.#strikeIfDue();
  }

  #programs = (): number[] => descendantsOf(process.pid, this.#options.guardian?.pid);

  #strikeIfDue(): void {
    if (!this.#due || this.#struck) return;
    const { code, words, line } = this.#due;
    const ended = endTrees(this.#programs());
    const outcome = this.#options.release();
    const where =
      line === undefined ? `in step ${this.#step}` : `in step ${this.#step}, CRIU's last line was: ${line}`;
    this.#struck = new Problem(code, `${words} ${where}; it was ended, ${outcome}`);
    this.#host.log.error({ step: this.#step, pids: ended, line }, this.#struck.message);
    for (const strike of this.#onStrike) strike(this.#struck);
  }
}
