import { namesIn, textOf } from './read-or-nothing.ts';

/**
 * The descendants of a process that are there now, by the kernel's own lists of children
 * (`/proc/<pid>/task/<tid>/children`, proc_pid_task_children(5); CRIU needs them, too): no other process is looked at.
 *
 * @param leftOut one that is left out, with all that descends from it.
 */
export function descendantsOf(pid: number, leftOut?: number): number[] {
  return childrenOf(pid)
    .filter((child) => child !== leftOut)
    .flatMap((child) => [child, ...descendantsOf(child, leftOut)]);
}

function childrenOf(pid: number): number[] {
  return namesIn(`/proc/${pid}/task`).flatMap((thread) =>
    textOf(`/proc/${pid}/task/${thread}/children`).split(' ').filter(Boolean).map(Number),
  );
}

/** Nanoseconds that the threads of a process have spent on a CPU (Documentation/scheduler/sched-stats). */
export const cpuTimeOf = (pid: number): number =>
  namesIn(`/proc/${pid}/task`).reduce(
    (sum, thread) => sum + Number(textOf(`/proc/${pid}/task/${thread}/schedstat`).split(' ')[0] ?? 0),
    0,
  );

/** The name of a process's program, at most 15 characters long (proc_pid_comm(5)); empty where there is no such process. */
export const programOf = (pid: number): string => textOf(`/proc/${pid}/comm`).trim();

/** All processes that there are now. */
export const processes = (): number[] =>
  namesIn('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);

/**
 * The fields of a process's stat from the third on (proc_pid_stat(5)), so that field `n` is at `n - 3`: the second, its
 * name, may hold anything. Empty where there is no such process.
 */
export function statFields(pid: number): string[] {
  const stat = textOf(`/proc/${pid}/stat`);
  return stat === '' ? [] : stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** Whether a signal is in one of the sets that a process's status has (proc_pid_status(5)): `SigPnd`, `SigIgn`, `SigCgt`, ... */
export function isInSignalSet(status: string, name: string, signal: number): boolean {
  const set = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1];
  return ((BigInt(`0x${set ?? 0}`) >> BigInt(signal - 1)) & 1n) === 1n;
}
