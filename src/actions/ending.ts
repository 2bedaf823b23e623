import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fs from 'fs-extra';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import type { Host } from './host.ts';
import type { Ending } from './ledger.ts';
import { isInitAlive, type RuncRecord, readRuncRecord } from './runc-state.ts';

const markOf = ({ bundle }: Pick<ContainerIdentity, 'bundle'>): string => join(bundle, 'tardis-killed');

/**
 * Notes that somebody asked runc to end the container's job. Without a lock, for a signal waits for nobody; where it
 * cannot be noted, the job counts as one that ended by itself.
 */
export function noteKill(container: ContainerIdentity): void {
  try {
    fs.writeFileSync(markOf(container), `${new Date().toISOString()}\n`, { mode: 0o600 });
  } catch {
    // The signal goes out all the same.
  }
}

/** Forgets the kills of an earlier container in this bundle, or of one that is deleted. */
export function forgetKill(container: Pick<ContainerIdentity, 'bundle'>): void {
  fs.rmSync(markOf(container), { force: true });
}

/**
 * How a container's job has ended, as far as can be told from between the shim and runc when the container is about
 * to be deleted. The shim alone learns the exit status; runc is never told, and neither is Tardis. What there is to
 * go by: whether the init is still there, whether runc was asked to kill it, whether the host is being shut down, and
 * whether its memory limit did.
 */
export function endingOf({ env }: Pick<Host, 'env'>, container: ContainerIdentity): Ending {
  const record = readRuncRecord(container);
  if (!record || isInitAlive(record) || fs.existsSync(markOf(container)) || isHostStopping(env))
    return 'killed';
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
