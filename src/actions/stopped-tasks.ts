import { processesIn } from './freezer.ts';
import { textOf } from './read-or-nothing.ts';

/**
 * The tasks of a frozen container that SIGSTOP, SIGTSTP, or a terminal had stopped, in the host's pid namespace.
 *
 * A v1 freezer shows every task in state D; only the kernel function that a task sleeps in still tells a stopped
 * one (`do_signal_stop`, proc_pid_wchan(5)).
 */
export function stoppedTasksIn(cgroup: string): number[] {
  return processesIn(cgroup).filter((pid) => textOf(`/proc/${pid}/wchan`) === 'do_signal_stop');
}

/** The innermost pid on the `NSpid` line (proc_pid_status(5)); undefined where the task is gone. */
export function pidInContainer(pid: number): number | undefined {
  const line = /^NSpid:\s*(.*)$/m.exec(textOf(`/proc/${pid}/status`))?.[1];
  return line === undefined ? undefined : Number(line.split(/\s+/).at(-1));
}

/** Sends a signal to a task that may have ended (a zombie that was reaped in between). */
export function signalTask(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
