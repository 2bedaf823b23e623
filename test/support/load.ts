import { readdirSync, readFileSync } from 'node:fs';

export type Load = {
  /** Wrappers at once, at most, and the memory that they had resident together (what they share counts for each). */
  wrappers: number;
  wrapperRssMiB: number;
  /** The least MemAvailable. */
  availableMiB: number;
};

const kib = (text: string, field: string): number =>
  Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0);

/**
 * Watches the host's memory until `stop`, and keeps the extremes.
 *
 * @param program a word of the wrappers' command line.
 */
export function watchLoad(program: string): { stop(): Load } {
  const load: Load = { wrappers: 0, wrapperRssMiB: 0, availableMiB: Number.POSITIVE_INFINITY };
  const look = () => {
    const available = kib(readFileSync('/proc/meminfo', 'utf8'), 'MemAvailable') / 1024;
    load.availableMiB = Math.min(load.availableMiB, Math.round(available));
    const wrappers = readdirSync('/proc').flatMap((pid) => rssOfWrapper(pid, program) ?? []);
    const together = Math.round(wrappers.reduce((sum, rss) => sum + rss, 0) / 1024);
    load.wrappers = Math.max(load.wrappers, wrappers.length);
    load.wrapperRssMiB = Math.max(load.wrapperRssMiB, together);
  };
  look();
  const timer = setInterval(look, 500);
  return {
    stop() {
      clearInterval(timer);
      return load;
    },
  };
}

function rssOfWrapper(pid: string, program: string): number | undefined {
  if (!/^\d+$/.test(pid)) return undefined;
  try {
    if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(program)) return undefined;
    return kib(readFileSync(`/proc/${pid}/status`, 'utf8'), 'VmRSS');
  } catch {
    return undefined; // It has ended under our eyes.
  }
}
