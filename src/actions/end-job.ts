import type { ContainerIdentity, RuncCall } from '../machines/vocabulary.ts';
import type { Host } from './host.ts';
import { runcForTardis } from './runc.ts';
import { removeEmptyCgroups, unmountLeftovers } from './runc-leftovers.ts';

/**
 * Ends a container as `runc checkpoint` without `--leave-running` would have: its tasks are killed (status 137),
 * its cgroup and runc's record of it are removed. Also removes what a failed restore left. May be run twice.
 */
export async function endJob(host: Host, container: ContainerIdentity, call: RuncCall): Promise<void> {
  await unmountLeftovers(container);
  await runcForTardis(host, [...call.globals, 'delete', '--force', container.id]);
  // Whoever could not read the configuration has not begun a container by it either.
  await removeEmptyCgroups(container).catch(() => {});
}
