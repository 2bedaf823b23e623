import { spawnSync } from 'node:child_process';
import fs, { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import type { Host } from './host.ts';
import type { Ending } from './ledger.ts';
import { isInitAlive, type RuncRecord, readRuncRecord } from './runc-state.ts';

type Bundle = Pick<ContainerIdentity, 'bundle'>;
/** Marks beside the state file: signals are not in that, for they wait for no lock. */
const killedMark = ({ bundle }: Bundle): string => join(bundle, 'tardis-killed');
const heldMark = ({ bundle }: Bundle): string => join(bundle, 'tardis-held');

/** Notes that somebody asked runc to end the container's job. */
export const noteKill = (container: Bundle): void => leave(killedMark(container));

/** Notes that a restored job has not run in this container yet: if it is gone now, it did not end by itself. */
export const noteHeld = (container: Bundle): void => leave(heldMark(container));

/** The restored job runs. */
export const forgetHeld = (container: Bundle): void => fs.rmSync(heldMark(container), { force: true });

/** Forgets what was noted of an earlier container in this bundle, or of one that is deleted. */
export function forgetMarks(container: Bundle): void {
  for (const mark of [killedMark(container), heldMark(container)]) fs.rmSync(mark, { force: true });
}

/** Where a mark cannot be left, the job counts as one that ended by itself; nothing else may fail over it. */
function leave(mark: string): void {
  try {
    fs.writeFileSync(mark, `${new Date().toISOString()}\n`, { mode: 0o600 });
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
  const isMarked = [killedMark(container), heldMark(container)].some((mark) => fs.existsSync(mark));
  if (!record || isInitAlive(record) || isMarked || isHostStopping(env)) return 'killed';
  return wasKilledByLimit(record) ? 'failed' : 'finished';
}

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
