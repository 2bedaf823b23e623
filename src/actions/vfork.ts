import { readdirSync, readFileSync } from 'node:fs';
import { processesIn } from './freezer.ts';

/** What a parent in vfork(2) sleeps in: the second is a part of the first where the compiler has put it there. */
const waitsForChild = new Set(['wait_for_vfork_done', 'kernel_clone', '_do_fork']);

/**
 * The threads that wait in vfork(2), posix_spawn(3), or the like until their child runs its program, in the host's
 * pid namespace.
 *
 * CRIU cannot stop one: such a wait ends by the child alone (`Unseizable non-zombie`, criu/seize.c), and the child is
 * stopped, too. Freezers take it for frozen. The kernel function that it sleeps in tells it (proc_pid_wchan(5),
 * kernel/fork.c).
 */
export function tasksInVfork(cgroup: string): number[] {
  return processesIn(cgroup).flatMap((pid) => {
    try {
      return readdirSync(`/proc/${pid}/task`)
        .filter((thread) => waitsForChild.has(readFileSync(`/proc/${pid}/task/${thread}/wchan`, 'utf8')))
        .map(Number);
    } catch {
      return []; // It is gone.
    }
  });
}
