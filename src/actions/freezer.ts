import fs from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Problem } from './problem.ts';
import type { RuncRecord } from './runc-state.ts';

export type Freezer = NonNullable<RuncRecord['freezer']>;

/** The file that freezes a cgroup, and the words to write there. */
export function freezerFile({ version, directory }: Freezer): {
  file: string;
  frozen: string;
  thawed: string;
} {
  return version === 1
    ? { file: join(directory, 'freezer.state'), frozen: 'FROZEN', thawed: 'THAWED' }
    : { file: join(directory, 'cgroup.freeze'), frozen: '1', thawed: '0' };
}

/** A task in uninterruptible sleep (a slow NFS server) keeps a cgroup from freezing; runc's CRIU waits as long. */
export const patienceMs = 10_000;

/**
 * The freezer of a container that runc knows.
 *
 * @throws Problem `freezer` where runc has no record of it, or no freezer cgroup.
 */
export function freezerOf(record: RuncRecord | undefined): Freezer {
  if (record?.freezer) return record.freezer;
  throw new Problem('freezer', 'the container has no freezer cgroup: expected one in runc’s record of it');
}

/** Whether the container is frozen, or on its way there. */
export function isFrozen(freezer: Freezer): boolean {
  const { file, thawed } = freezerFile(freezer);
  return fs.readFileSync(file, 'utf8').trim() !== thawed;
}

/** Orders every task of the container to freeze, without waiting for the last one. */
export function beginFreeze(freezer: Freezer): void {
  const { file, frozen } = freezerFile(freezer);
  fs.writeFileSync(file, frozen);
}

/**
 * Waits until every task is frozen.
 *
 * @throws Problem `freezer` after ten seconds.
 */
export async function awaitFrozen(freezer: Freezer): Promise<void> {
  const deadline = Date.now() + patienceMs;
  while (!isWhollyFrozen(freezer)) {
    if (Date.now() > deadline) {
      throw new Problem(
        'freezer',
        `${freezer.directory} did not freeze in ${patienceMs / 1000} s: a task cannot be interrupted`,
      );
    }
    // On v1 a second write makes the kernel look again at tasks that were busy the first time (runc does the same).
    beginFreeze(freezer);
    await delay(1);
  }
}

function isWhollyFrozen({ version, directory }: Freezer): boolean {
  if (version === 1) return fs.readFileSync(join(directory, 'freezer.state'), 'utf8').trim() === 'FROZEN';
  return /^frozen 1$/m.test(fs.readFileSync(join(directory, 'cgroup.events'), 'utf8'));
}

/** Lets every task of the container go on; harmless where none is frozen. */
export function thaw(freezer: Freezer): void {
  const { file, thawed } = freezerFile(freezer);
  fs.writeFileSync(file, thawed);
}

/** The processes of a container, in the host's pid namespace, those in cgroups below its own included. */
export function processesIn(directory: string): number[] {
  const pids = fs
    .readFileSync(join(directory, 'cgroup.procs'), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map(Number);
  for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) pids.push(...processesIn(join(directory, entry.name)));
  }
  return pids;
}
