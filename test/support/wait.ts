import { setTimeout as delay } from 'node:timers/promises';
import { inspect } from 'node:util';

export type WaitOptions = {
  timeoutMs?: number;
  /** Pause between two looks. */
  everyMs?: number;
  /** What to show when time is up; default: what the last look threw or returned. */
  seen?: () => string;
};

/**
 * Looks until `probe` returns something other than undefined, null or false, and returns that. A probe that throws has
 * not seen it yet.
 *
 * @example
 * const pid = await waitFor('the pid file', () => readPid(file), { timeoutMs: 5_000 });
 */
export async function waitFor<T>(
  what: string,
  probe: () => T | undefined | null | false | Promise<T | undefined | null | false>,
  options: WaitOptions = {},
): Promise<T> {
  const { timeoutMs = 30_000, everyMs = 25 } = options;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    let last: string;
    try {
      const found = await probe();
      if (found !== undefined && found !== null && found !== false) return found;
      last = inspect(found);
    } catch (thrown) {
      if (thrown instanceof Hopeless) throw thrown;
      last = thrown instanceof Error ? thrown.message : inspect(thrown);
    }
    if (performance.now() > deadline) {
      throw new Error(`waited ${timeoutMs} ms for ${what}; last seen: ${options.seen?.() ?? last}`);
    }
    await delay(everyMs);
  }
}

/** Thrown by a probe that knows waiting any longer is useless. */
export class Hopeless extends Error {}
