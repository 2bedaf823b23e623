import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { type Freezer, freezerFile } from './freezer.ts';
import { type Host, searchPathOf } from './host.ts';
import { processStartTime } from './runc-state.ts';

/**
 * How long a wrapper may say nothing before its guardian takes it for asleep. It says a word each second, and the
 * guardian's clock ticks each second, too: less than three would be luck.
 */
export const silenceSeconds = ({ freezeStallSeconds }: Host['config']): number =>
  Math.max(3, Math.ceil(freezeStallSeconds));

/** How long a guardian may take to end. */
const dismissMs = 2_000;

/** What a guardian is told of the checkpoint that it guards. */
export interface Guarded {
  /** The container's id. */
  readonly id: string;
  readonly freezer: Freezer;
  /** Whether the container is left frozen, because somebody had paused it before. */
  readonly keepFrozen: boolean;
}

/**
 * A process of its own that thaws the job if this wrapper is killed, or sleeps in the kernel: bin/tardis-guardian, which
 * says what the lines mean. It shares the wrapper's lock, so that no later command works on the container beside it.
 *
 * Without one (it cannot be started, or somebody has killed it) the checkpoint goes on: the next command recovers, then.
 */
export class Guardian {
  readonly #child: ChildProcess | undefined;
  readonly #ended: Promise<void>;
  #struck = false;

  constructor(host: Host, { id, freezer, keepFrozen }: Guarded) {
    const program = host.home && join(host.home, 'bin/tardis-guardian');
    if (program === undefined || !existsSync(program)) {
      host.log.warn(
        { program },
        'no guardian: a checkpoint whose wrapper is killed is undone by the next command alone',
      );
      this.#ended = Promise.resolve();
      return;
    }
    const { file, frozen, thawed } = freezerFile(freezer);
    const silence = String(silenceSeconds(host.config));
    const child = spawn(program, [id, silence, file, thawed, frozen, String(process.pid)], {
      // Out of the caller's process group, which may be killed as one.
      detached: true,
      cwd: '/',
      env: { PATH: searchPathOf(host) },
      stdio: ['pipe', 'pipe', 'ignore', ...(host.locks ?? [])],
    });
    this.#child = child;
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => {
        host.log.warn({ reason: error.message }, 'no guardian can be started');
        resolve();
      });
      child.once('exit', () => resolve());
    });
    child.stdout?.once('data', () => {
      this.#struck = true;
    });
    // It may have been killed.
    child.stdin?.on('error', () => {});
    if (keepFrozen) this.#tell('keep');
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Whether it took this process for dead, killed what worked for it, and thawed the job. */
  async hasStruck(): Promise<boolean> {
    // What it says is read when nothing else is left to be done.
    await setImmediate();
    return this.#struck;
  }

  /** The wrapper is at work. */
  beat(): void {
    this.#tell('beat');
  }

  /** A program works for the wrapper; with undefined, none does any more. */
  work(pid: number | undefined): void {
    this.#tell(pid === undefined ? 'rest' : `work ${pid} ${processStartTime(pid) ?? 0}`);
  }

  /** Tasks to stop before the container is thawed. */
  stop(pids: readonly number[]): void {
    this.#tell(`stop ${pids.join(' ')}`);
  }

  /** The checkpoint has ended, and with it the guardian. */
  async dismiss(): Promise<void> {
    this.#tell('done');
    // Somebody may have stopped it.
    const late = setTimeout(() => this.#kill(), dismissMs);
    await this.#ended;
    clearTimeout(late);
  }

  #kill(): void {
    try {
      if (this.#child?.pid !== undefined) process.kill(-this.#child.pid, 'SIGKILL');
    } catch {
      // It has just ended.
    }
  }

  #tell(line: string): void {
    if (this.#child?.stdin?.writable) this.#child.stdin.write(`${line}\n`);
  }
}
