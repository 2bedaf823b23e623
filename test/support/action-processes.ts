import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { whichOrThrow } from './paths.ts';
import { waitFor } from './wait.ts';

/** What the kernel says of a process (proc_pid_stat(5)); undefined where there is none. */
export function statOf(pid: number): { state: string; session: number; startTime: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state: fields[0] ?? '', session: Number(fields[3]), startTime: Number(fields[19]) };
  } catch {
    return undefined;
  }
}

/** Whether a process is there, and no zombie that somebody has yet to reap. */
export const isThere = (pid: number): boolean => !['Z', 'X', undefined].includes(statOf(pid)?.state);

/** The processes of a session that are there. */
export const sessionOf = (leader: number): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => isThere(pid) && statOf(pid)?.session === leader);

/** A program at work, in a session of its own; all of it is gone with it. */
export class Job implements Disposable {
  readonly #child: ChildProcess;

  /** @param script what a shell does; undefined where the program is none, and takes other words. */
  constructor(script: string | undefined, program = 'sh', words: string[] = []) {
    this.#child = spawn(program, script === undefined ? words : ['-c', script], {
      detached: true,
      stdio: 'ignore',
    });
    this.#child.once('error', () => {});
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error('the job could not be started');
    return pid;
  }

  get startTime(): number {
    return statOf(this.pid)?.startTime ?? 0;
  }

  /** All that it has begun, and itself. */
  get all(): number[] {
    return sessionOf(this.pid);
  }

  /** Resolves when so many of its processes are there. */
  grown(count: number): Promise<true> {
    return waitFor(`${count} processes of ${this.pid}`, () => this.all.length === count || undefined, {
      everyMs: 5,
    });
  }

  kill(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  [Symbol.dispose](): void {
    for (const pid of this.all) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
    }
  }
}

/** A copy of a program, for the kernel of the name that its path has. */
export function programNamed(path: string, original: string): string {
  copyFileSync(whichOrThrow(original), path);
  return path;
}
