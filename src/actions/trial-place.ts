import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import type { Host } from './host.ts';
import { Problem, reasonOf } from './problem.ts';
import { removeCgroups } from './runc-leftovers.ts';
import { trialOf } from './scratch.ts';
import { shortDigest } from './short-digest.ts';

/**
 * The program that restores an image in namespaces of its own, see trial-restore.ts.
 *
 * @throws Problem `unproven` where this Tardis is not installed whole.
 */
export function findTrialProgram({ home }: Pick<Host, 'home'>): string {
  const program = home && join(home, 'dist/trial-restore.cjs');
  if (program !== undefined && existsSync(program)) return program;
  throw new Problem(
    'unproven',
    `the image could not be proven: expected the program ${program ?? 'dist/trial-restore.cjs'}; build Tardis ` +
      '(scripts/prepare.sh), or do without verifyByRestore',
  );
}

/**
 * The cgroup of a container's copy, below the top of each hierarchy: never inside the job's, which is frozen, nor beside
 * it, where a limit of its pod or slice would count the copy's memory, too.
 */
export const trialCgroupOf = ({ root, id }: Pick<ContainerIdentity, 'root' | 'id'>): string =>
  `/tardis-trial-${shortDigest(`${root}\0${id}`)}`;

/**
 * Removes what a trial leaves on the host, once its processes have ended: a cgroup, and its files. Its mounts were in a
 * namespace that is gone. May be run twice, also where there was no trial; failing to fails nothing.
 */
export async function dropTrial(host: Host, container: ContainerIdentity): Promise<void> {
  const directory = trialOf(host, container);
  try {
    await removeCgroups(trialCgroupOf(container));
    await rm(directory, { recursive: true, force: true });
  } catch (error) {
    host.log.warn({ directory, reason: reasonOf(error) }, 'the trial of an image stays: remove it by hand');
  }
}
