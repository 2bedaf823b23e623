import { readdirSync, readFileSync } from 'node:fs';

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

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
