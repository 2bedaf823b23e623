import { spawnSync } from 'node:child_process';
import fs, { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import type { Host } from './host.ts';
import type { Ending } from './ledger.ts';
import { isInSignalSet } from './processes.ts';
import { textOf } from './read-or-nothing.ts';
import { isInitAlive, type RuncRecord, readRuncRecord } from './runc-state.ts';
import { pidInContainer } from './stopped-tasks.ts';

type Bundle = Pick<ContainerIdentity, 'bundle'>;
/** Marks beside the state file: signals are not in that, for they wait for no lock. */
const killedMark = ({ bundle }: Bundle): string => join(bundle, 'tardis-killed');
const heldMark = ({ bundle }: Bundle): string => join(bundle, 'tardis-held');

/** A signal that runc was asked to send, which may end the job. */
interface Sent {
  /** In milliseconds since the epoch. */
  readonly at: number;
  /** Its number; 0 where its name is not known. */
  readonly signal: number;
}

/** SIGKILL (signal(7)): a job does not survive it. */
const kill = 9;

/** The number of a signal as `runc kill` takes it: a number, or a name with or without SIG; 0 where it is neither. */
export function signalNumber(word: string): number {
  if (/^\d+$/.test(word)) return Number(word);
  const name = `SIG${word.toUpperCase().replace(/^SIG/, '')}` as NodeJS.Signals;
  return constants.signals[name] ?? 0;
}

/**
 * Notes that runc is about to be asked for a signal that may end the job; not where it cannot: the init is gone (an
 * engine signals a job again that has ended, before it deletes it), or ignores that signal.
 *
 * @returns takes the note back: runc could not send it.
 */
export function noteKill(
  container: Pick<ContainerIdentity, 'bundle' | 'root' | 'id'>,
  word: string,
): () => void {
  const record = readRuncRecord(container);
  const signal = signalNumber(word);
  if (!record || !isInitAlive(record) || isIgnored(record.pid, signal)) return () => {};
  const mark = killedMark(container);
  const before = textOf(mark);
  leave(mark, `${before}${JSON.stringify({ at: Date.now(), signal } satisfies Sent)}\n`);
  return () => {
    if (before === '') fs.rmSync(mark, { force: true });
    else leave(mark, before);
  };
}

/** The signals that may have ended the job, as they were noted. */
export function sentSignals(container: Bundle): Sent[] {
  return textOf(killedMark(container))
    .split('\n')
    .flatMap((line) => {
      try {
        return [JSON.parse(line) as Sent];
      } catch {
        // An earlier Tardis left the time alone.
        return line === '' ? [] : [{ at: Date.parse(line), signal: 0 }];
      }
    });
}

/**
 * Whether a process does not notice a signal: it ignores it, or has no handler for it and is the init of its pid
 * namespace, which the kernel spares then (signal(7), pid_namespaces(7)).
 */
function isIgnored(pid: number, signal: number): boolean {
  if (signal === kill || signal === 0) return false;
  const status = textOf(`/proc/${pid}/status`);
  const has = (name: string): boolean => isInSignalSet(status, name, signal);
  const isInit = pid !== 1 && pidInContainer(pid) === 1;
  // One that waits for a signal, by sigwait(3) or a signalfd(2), blocks it.
  return has('SigIgn') || (isInit && !has('SigCgt') && !has('SigBlk'));
}

/** Notes that a restored job has not run in this container yet: if it is gone now, it did not end by itself. */
export const noteHeld = (container: Bundle): void => leave(heldMark(container));

/** Whether a restored job has not run in this container yet. */
export const isMarkedHeld = (container: Bundle): boolean => fs.existsSync(heldMark(container));

/** The restored job runs. */
export const forgetHeld = (container: Bundle): void => fs.rmSync(heldMark(container), { force: true });

/** Forgets what was noted of an earlier container in this bundle, or of one that is deleted. */
export function forgetMarks(container: Bundle): void {
  for (const mark of [killedMark(container), heldMark(container)]) fs.rmSync(mark, { force: true });
}

/** Where a mark cannot be left, the job counts as one that ended by itself; nothing else may fail over it. */
function leave(mark: string, text = `${new Date().toISOString()}\n`): void {
  try {
    fs.writeFileSync(mark, text, { mode: 0o600 });
  } catch {
    // The command is carried out all the same.
  }
}

/**
 * How a container's job has ended, as far as can be told from between the shim and runc when the container is about
 * to be deleted. The shim alone learns the exit status; runc is never told, and neither is Tardis. What there is to
 * go by: whether the init is still there, whether runc was asked to kill it, whether the host is being shut down, and
 * whether its memory limit did.
 */
export function endingOf({ env }: Pick<Host, 'env'>, container: ContainerIdentity): Ending {
  const record = readRuncRecord(container);
  const wasHeld = isMarkedHeld(container);
  if (!record || isInitAlive(record) || wasHeld || wasKilled(container) || isHostStopping(env))
    return 'killed';
  return wasKilledByLimit(record) ? 'failed' : 'finished';
}

/** As long as an engine may wait between its stop signal and SIGKILL; kubelet's terminationGracePeriodSeconds is seldom more. */
const graceMs = 3_600_000;

/**
 * Whether a signal ended the job. SIGKILL did. Another one may have been survived (a thread dump by SIGQUIT, a SIGTERM that
 * a handler answers by going on): the job has not ended by it when it is deleted long after.
 */
const wasKilled = (container: Bundle): boolean =>
  sentSignals(container).some(({ at, signal }) => signal === kill || Date.now() - at < graceMs);

/**
 * Whether the host is on its way down. systemd then ends the processes in every scope itself, those of containers
 * included, and asks neither an engine nor runc: what looks like a job that ended was preempted.
 */
function isHostStopping(env: NodeJS.ProcessEnv): boolean {
  const { stdout } = spawnSync('systemctl', ['is-system-running'], { env, encoding: 'utf8', timeout: 2000 });
  return stdout?.trim() === 'stopping';
}

/** `oom_kill` of memory.oom_control (cgroup v1) and of memory.events (v2) counts the tasks that the limit killed. */
function wasKilledByLimit({ memory }: RuncRecord): boolean {
  if (memory === undefined) return false;
  return ['memory.oom_control', 'memory.events'].some((name) => {
    try {
      return Number(/^oom_kill (\d+)$/m.exec(readFileSync(join(memory, name), 'utf8'))?.[1] ?? 0) > 0;
    } catch {
      return false;
    }
  });
}
