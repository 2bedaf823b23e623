import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { isThere, sessionOf } from './action-processes.ts';
import { projectRoot, which } from './paths.ts';
import { waitFor } from './wait.ts';

/** How each shell is started that may be a host's /bin/sh: bash keeps to POSIX where it is called `sh`. */
const known: readonly Shell[] = [
  ['sh', 'sh', []],
  ['bash', 'bash', []],
  ['busybox', 'busybox', ['sh']],
];
export const shells = known.filter(([, program]) => which(program) !== undefined);

export type Shell = readonly [name: string, program: string, words: readonly string[]];

export interface GuardianOptions {
  /** Seconds. */
  readonly silence?: number;
  readonly wrapper?: number;
  /** Whether the freezer is a pipe, so that whoever writes there waits until it is read. */
  readonly slowFreezer?: boolean;
}

/** What the freezer says before anybody has written there. */
export const untouched = 'nobody has written here';

/** bin/tardis-guardian on a plain file, and this process as the wrapper that has started it. */
export class GuardianRun implements Disposable {
  readonly #home = mkdtempSync(join(tmpdir(), 'tardis-guardian-'));
  readonly freezer = join(this.#home, 'freezer.state');
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #ended: Promise<unknown>;
  #said = '';

  constructor([, program, words]: Shell, { silence = 30, wrapper = 0, slowFreezer }: GuardianOptions = {}) {
    if (slowFreezer) execFileSync('mkfifo', [this.freezer]);
    else writeFileSync(this.freezer, untouched);
    const script = join(projectRoot, 'bin/tardis-guardian');
    const args = [
      ...words,
      script,
      'job',
      String(silence),
      this.freezer,
      'THAWED',
      'FROZEN',
      String(wrapper),
    ];
    this.#child = spawn(program, args, {
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
      ...(program === 'bash' ? { argv0: 'sh' } : {}),
    });
    this.#ended = once(this.#child, 'exit');
    // It may have ended.
    this.#child.stdin.on('error', () => {});
    this.#child.stdout.on('data', (data: Buffer) => {
      this.#said += data;
    });
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** What it has printed so far. */
  get said(): string {
    return this.#said;
  }

  get word(): string {
    return readFileSync(this.freezer, 'utf8');
  }

  say(...lines: string[]): void {
    this.#child.stdin.write(lines.map((line) => `${line}\n`).join(''));
  }

  /** The wrapper is killed in the middle of a line. */
  cut(line: string): void {
    this.#child.stdin.end(line);
  }

  /** The wrapper is gone. */
  close(): void {
    this.#child.stdin.end();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Its status, once it has ended and nothing is left of it: its clock and that one's sleep neither. */
  async end(): Promise<number | null> {
    await this.#ended;
    await waitFor('the end of its session', () => sessionOf(this.pid).length === 0);
    return this.#child.exitCode;
  }

  /** Itself, its clock, and that one's sleep. */
  get session(): number[] {
    return sessionOf(this.pid);
  }

  get hasEnded(): boolean {
    return !isThere(this.pid);
  }

  [Symbol.dispose](): void {
    for (const pid of sessionOf(this.pid)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
    }
    rmSync(this.#home, { recursive: true });
  }
}
