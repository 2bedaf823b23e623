import { readFileSync } from 'node:fs';
import { cpuTimeOf, descendantsOf, programOf } from './processes.ts';

/** What one look at a wrapper and the programs that work for it finds. */
interface Sample {
  /** CPU time of each program, in nanoseconds, by its pid. */
  readonly programs: ReadonlyMap<number, number>;
  /** CPU time of this process, in microseconds. */
  readonly ownCpu: number;
  /** Bytes that this process has read and written, by any system call. */
  readonly ownBytes: number;
  /** Whether somebody only waits for the kernel to write, and how far it is. */
  readonly written: string | undefined;
}

/** What a look itself costs, and a timer that only waits, is no progress. */
const idleMicroseconds = 150_000;
const idleBytes = 1 << 20;

/**
 * Tells whether a checkpoint or a restore gets on: whether CRIU, tar, and the other programs have used a CPU since the
 * last look, or this process itself has, or has read or written much, or the kernel writes what sync(1) waits for.
 *
 * A runc is left out: it only waits for CRIU, and its Go runtime looks about from time to time.
 */
export class Progress {
  readonly #leftOut: number | undefined;
  readonly #written: () => string;
  /** How much work of this process waits for the kernel to write. */
  #waiting = 0;
  #last: Sample;

  /**
   * @param written see `writebackCounter`.
   * @param leftOut a program of which no progress is expected: the guardian, whose clock ticks.
   */
  constructor(written: () => string, leftOut?: number) {
    this.#written = written;
    this.#leftOut = leftOut;
    this.#last = this.#sample();
  }

  /** Does something in this process that waits for the kernel to write, such as fdatasync(2). */
  async writing<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#waiting += 1;
    try {
      return await work();
    } finally {
      this.#waiting -= 1;
    }
  }

  /** Whether there has been any since the last time. */
  seen(): boolean {
    const before = this.#last;
    const now = this.#sample();
    this.#last = now;
    // A program that has ended, or begun, is progress, too.
    if (now.programs.size !== before.programs.size) return true;
    for (const [pid, time] of now.programs) if (before.programs.get(pid) !== time) return true;
    if (now.ownCpu - before.ownCpu > idleMicroseconds) return true;
    if (now.ownBytes - before.ownBytes > idleBytes) return true;
    return now.written !== undefined && now.written !== before.written;
  }

  #sample(): Sample {
    const pids = descendantsOf(process.pid, this.#leftOut);
    const names = new Map(pids.map((pid) => [pid, programOf(pid)]));
    const working = pids.filter((pid) => names.get(pid) !== 'runc');
    const isWaiting = this.#waiting > 0 || [...names.values()].includes('sync');
    const { user, system } = process.cpuUsage();
    return {
      programs: new Map(working.map((pid) => [pid, cpuTimeOf(pid)])),
      ownCpu: user + system,
      ownBytes: ownBytes(),
      written: isWaiting ? this.#written() : undefined,
    };
  }
}

/** `rchar` and `wchar` of proc_pid_io(5). */
function ownBytes(): number {
  const text = readFileSync('/proc/self/io', 'utf8');
  return Number(/^rchar: (\d+)$/m.exec(text)?.[1] ?? 0) + Number(/^wchar: (\d+)$/m.exec(text)?.[1] ?? 0);
}
