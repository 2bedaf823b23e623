import { spawnSync } from 'node:child_process';
import { descendantsOf, programOf } from './processes.ts';

/**
 * Lets the CRIUs that the runcs among some processes have begun fail at the next file that they open. A CRIU that fails
 * cures the tasks that it holds; one that is killed while it injects its parasite into a task takes that task along. It is
 * known by its parent: its program may be a loader, or a script.
 *
 * @returns whether there was one.
 */
export function spoilCriu(pids: readonly number[]): boolean {
  const found = pids.filter((pid) => programOf(pid) === 'runc').flatMap((pid) => descendantsOf(pid));
  spoilPrograms(found);
  return found.length > 0;
}

/** Lets programs fail at the next file that they open. */
export function spoilPrograms(pids: readonly number[]): void {
  for (const pid of pids) spawnSync('prlimit', ['--pid', String(pid), '--nofile=0:'], { timeout: 1_000 });
}
