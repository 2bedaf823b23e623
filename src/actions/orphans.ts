import { basename } from 'node:path';
import { descendantsOf, processes } from './processes.ts';
import { namesIn, targetOf, textOf } from './read-or-nothing.ts';

/** O_CLOEXEC, as proc_pid_fdinfo(5) shows it. */
const closeOnExec = 0o2000000;

interface Holder {
  readonly pid: number;
  /** A Node, whose descriptor is closed on exec, as all that Node opens; those it gave to its children are not. */
  readonly isWrapper: boolean;
}

/**
 * The processes that a dead wrapper left at work, by the lock that they hold in its place; none while a wrapper lives
 * that holds it.
 *
 * @param path the lock's file, without symlinks.
 */
export function orphansOf(path: string): number[] {
  const holders = holdersOf(path);
  return holders.some(({ isWrapper }) => isWrapper) ? [] : holders.map(({ pid }) => pid);
}

const isNode = (pid: number): boolean =>
  basename(targetOf(`/proc/${pid}/exe`)).replace(' (deleted)', '') === basename(process.execPath);

/** The processes that hold a lock, by its file without symlinks; not those that wait for it. */
export function holdersOf(path: string): Holder[] {
  return processes().flatMap((pid) =>
    namesIn(`/proc/${pid}/fd`)
      .filter((fd) => targetOf(`/proc/${pid}/fd/${fd}`) === path)
      .map((fd) => textOf(`/proc/${pid}/fdinfo/${fd}`))
      // One that only waits for the lock has the file open too, and no lock on it.
      .filter((info) => /^lock:\s/m.test(info))
      .map((info) => {
        const flags = Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(info)?.[1] ?? '0', 8);
        return { pid, isWrapper: isNode(pid) && (flags & closeOnExec) !== 0 };
      }),
  );
}

/**
 * Ends processes and all that descends from them: a runc, its criu, and the tasks that this has restored half-way.
 * They are stopped first, so that none begets another unseen.
 *
 * @returns all that were ended.
 */
export function endTrees(roots: readonly number[]): number[] {
  const stopped = new Set<number>();
  for (;;) {
    const fresh = roots.flatMap((root) => [root, ...descendantsOf(root)]).filter((pid) => !stopped.has(pid));
    if (fresh.length === 0) break;
    for (const pid of fresh) {
      signal(pid, 'SIGSTOP');
      stopped.add(pid);
    }
  }
  for (const pid of stopped) signal(pid, 'SIGKILL');
  return [...stopped];
}

function signal(pid: number, name: 'SIGSTOP' | 'SIGKILL'): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}
