import { execa } from 'execa';
import { type Host, searchPathOf } from './host.ts';
import { isInSignalSet } from './processes.ts';
import { textOf } from './read-or-nothing.ts';
import { pidInContainer, signalTask } from './stopped-tasks.ts';

/** SIGCONT (signal(7)). */
const cont = 18;

/** Signals that stop a task, if it lets them: SIGTSTP, SIGTTIN, SIGTTOU. */
const stops = [
  ['SIGTSTP', 20],
  ['SIGTTIN', 21],
  ['SIGTTOU', 22],
] as const;

/**
 * Takes the SIGCONT back from frozen tasks, with which they were continued: one that has a handler for it, or waits for it (sigwait(3),
 * signalfd(2)), would see it. To all others it is nothing.
 *
 * A stop signal takes a pending SIGCONT away as it is sent, also where the task ignores it (kernel/signal.c, prepare_signal).
 * The init of a pid namespace ignores even a SIGSTOP, if that comes from inside (pid_namespaces(7)); of the others those can be
 * spared that ignore one of the stop signals a terminal sends.
 */
export async function hideContinue(host: Host, pids: readonly number[]): Promise<void> {
  for (const pid of pids) {
    const status = textOf(`/proc/${pid}/status`);
    const has = (set: string, signal: number): boolean => isInSignalSet(status, set, signal);
    if (!has('ShdPnd', cont)) continue;
    if (pidInContainer(pid) === 1) {
      const words = [`--target=${pid}`, '--pid', 'sh', '-c', 'kill -STOP 1'];
      const env = { PATH: searchPathOf(host) };
      await execa('nsenter', words, { stdio: 'ignore', env, extendEnv: false, reject: false });
      continue;
    }
    const [ignored] = stops.find(([, signal]) => has('SigIgn', signal) && !has('SigBlk', signal)) ?? [];
    if (ignored) signalTask(pid, ignored);
  }
}
