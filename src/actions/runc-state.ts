import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { ContainerIdentity, ObservedStatus } from '../machines/vocabulary.ts';
import { isFrozen } from './freezer.ts';
import type { Host } from './host.ts';
import { reasonOf } from './problem.ts';
import { isInSignalSet, statFields } from './processes.ts';
import { textOf } from './read-or-nothing.ts';
import { runcForTardis } from './runc.ts';
import * as z from './schema.ts';

/**
 * What Tardis reads of runc's own record, `<root>/<id>/state.json` (libcontainer's BaseState and State; the same
 * names in runc 1.1 to 1.3).
 */
const recordSchema = z.object({
  init_process_pid: z.number(),
  init_process_start: z.number(),
  /** By controller on cgroup v1; under the empty name on v2. */
  cgroup_paths: z.record(z.string(), z.string()),
  config: z.optional(z.object({ labels: z.nullish(z.array(z.string())) })),
});

export interface RuncRecord {
  /** In the host's pid namespace. */
  readonly pid: number;
  /** The init's start time, in clock ticks since boot: a pid that was used again starts later. */
  readonly startTime: number;
  /** The directory whose `freezer.state` (v1) or `cgroup.freeze` (v2) freezes the whole container. */
  readonly freezer: { readonly version: 1 | 2; readonly directory: string } | undefined;
  /** The directory in which the memory controller counts what its limit has killed. */
  readonly memory: string | undefined;
  /** Where its config.json is; undefined where the record does not say. */
  readonly bundle?: string | undefined;
}

/** Reads runc's record of a container; undefined where runc has none (or none that can be understood). */
export function readRuncRecord(container: Pick<ContainerIdentity, 'root' | 'id'>): RuncRecord | undefined {
  try {
    const text = readFileSync(join(container.root, container.id, 'state.json'), 'utf8');
    const {
      init_process_pid: pid,
      init_process_start: startTime,
      cgroup_paths: paths,
      config,
    } = recordSchema.parse(JSON.parse(text));
    const v1 = paths.freezer;
    const v2 = paths[''];
    const freezer = v1
      ? ({ version: 1, directory: v1 } as const)
      : v2
        ? ({ version: 2, directory: v2 } as const)
        : undefined;
    const bundle = config?.labels?.find((label) => label.startsWith('bundle='))?.slice('bundle='.length);
    return { pid, startTime, freezer, memory: paths.memory ?? v2, ...(bundle ? { bundle } : {}) };
  } catch {
    return undefined;
  }
}

/** Whether the container's init is the process it was, and not a zombie that waits to be reaped. */
export function isInitAlive({ pid, startTime }: RuncRecord): boolean {
  return processStartTime(pid) === startTime;
}

/** When a process was started, in clock ticks since boot; undefined where there is none, or only a zombie. */
export function processStartTime(pid: number): number | undefined {
  // Field 3 is the state and field 22 the start time.
  const fields = statFields(pid);
  return fields.length === 0 || fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19]);
}

/** Whether the container's init is gone, or has been killed and is being taken apart: large memory takes seconds. */
export function isInitEnding(record: RuncRecord): boolean {
  if (!isInitAlive(record)) return true;
  // Field 9 has the kernel's flags, PF_EXITING among them.
  const flags = Number(statFields(record.pid)[6] ?? exiting);
  const status = textOf(`/proc/${record.pid}/status`);
  return (
    (flags & exiting) !== 0 || status === '' || isInSignalSet(status, 'SigPnd', constants.signals.SIGKILL)
  );
}

/** PF_EXITING (include/linux/sched.h). */
const exiting = 0x4;

/** Bytes that the memory controller counts for a container, its page cache included; 0 where it has none. */
export function usedMemory(record: RuncRecord | undefined): number {
  if (record?.memory === undefined) return 0;
  for (const name of ['memory.usage_in_bytes', 'memory.current']) {
    try {
      return Number(readFileSync(join(record.memory, name), 'utf8'));
    } catch {
      // The other version of cgroups.
    }
  }
  return 0;
}

/**
 * A container's status, as runc tells it; where runc does not answer, its own record tells. What is frozen is paused to
 * runc, whatever else it is (state_linux.go, refreshState): one that an engine has paused for its checkpoint does not
 * wait, frozen, for runc to say so.
 */
export async function observeContainer(
  host: Host,
  container: Pick<ContainerIdentity, 'root' | 'id'>,
): Promise<ObservedStatus> {
  try {
    const record = readRuncRecord(container);
    if (record?.freezer && isInitAlive(record) && isFrozen(record.freezer)) return 'paused';
    const words = await runcForTardis(host, ['--root', container.root, 'state', container.id]);
    const { status } = z
      .object({ status: z.enum(['created', 'running', 'paused', 'stopped']) })
      .parse(JSON.parse(words));
    return status;
  } catch (error) {
    const status = recordedStatus(container);
    // A container that is there, and whose runc hangs or was killed: taken for gone, it would never be let go.
    if (status !== 'gone')
      host.log.warn(
        `runc does not say how the container is, by its record it is ${status}: ${reasonOf(error)}`,
      );
    return status;
  }
}

/** A container's status as runc tells it (libcontainer, refreshState): by its record, its init, and its freezer. */
function recordedStatus(container: Pick<ContainerIdentity, 'root' | 'id'>): ObservedStatus {
  const record = readRuncRecord(container);
  if (!record) return 'gone';
  if (!isInitAlive(record)) return 'stopped';
  if (isPaused(record)) return 'paused';
  return existsSync(join(container.root, container.id, 'exec.fifo')) ? 'created' : 'running';
}

function isPaused({ freezer }: RuncRecord): boolean {
  try {
    return freezer !== undefined && isFrozen(freezer);
  } catch {
    return false;
  }
}
