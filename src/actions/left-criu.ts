import { setTimeout as delay } from 'node:timers/promises';
import { endTrees } from './orphans.ts';
import { processes } from './processes.ts';
import { targetOf } from './read-or-nothing.ts';
import { spoilPrograms } from './spoil-criu.ts';

/** As long as a guardian gives it (bin/tardis-guardian): its own end is the best one for the tasks that it holds. */
const patienceMs = 800;

/**
 * Ends the CRIU that a runc has left at work which was killed itself; nothing where there is none. Left alone, it gives the
 * freezer back the state it found (criu/seize.c) after the job was let go, or restores a job that begins from scratch.
 *
 * @param work its work directory, which is its current one (criu/cr-service.c, setup_opts_from_req), and nobody else's.
 */
export async function endLeftCriu(work: string): Promise<void> {
  const left = (): number[] => processes().filter((pid) => targetOf(`/proc/${pid}/cwd`) === work);
  for (const deadline = Date.now() + patienceMs; left().length > 0; await delay(50)) {
    if (Date.now() > deadline) endTrees(left());
    else spoilPrograms(left());
    // One that sleeps in the kernel cannot be ended.
    if (Date.now() > deadline + patienceMs) return;
  }
}
