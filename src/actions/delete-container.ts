import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DeleteStep } from '../machines/container-context.ts';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { type ResumeAfter, readContainerConfig, resumeAfterOf } from './container-config.ts';
import { endingOf, forgetMarks, isMarkedHeld } from './ending.ts';
import type { Host } from './host.ts';
import { giveUpLife } from './retention.ts';
import { dropRollback } from './rollback.ts';
import { RuncFailure, runcForCaller } from './runc.ts';
import { removeEmptyCgroups, unmountLeftovers } from './runc-leftovers.ts';
import { readRuncRecord } from './runc-state.ts';
import { dropScratch } from './scratch.ts';
import { dropTrial } from './trial-place.ts';

/**
 * Deletes a container and what Tardis has put beside it; not its entry in the index, without which nobody would come
 * back to a delete that was cut short.
 *
 * @returns runc's status: 1 also for a container that had been gone before (after a checkpoint with exit), which
 * the shim tells from runc's words "does not exist".
 * @throws RuncFailure where runc keeps the container.
 */
export async function deleteContainer(host: Host, { container, call, life }: DeleteStep): Promise<number> {
  const ending = endingOf(host, container);
  let status = 0;
  await unmountLeftovers(container);
  try {
    // To its caller a job that is held until its start is a container that is created, which runc deletes without --force;
    // to runc it is paused.
    const isHeld = !call.switches.includes('force') && isMarkedHeld(container);
    const log = call.log ? ['--log', call.log.file, '--log-format', call.log.format] : [];
    const forced = [...call.globals, ...log, 'delete', '--force', container.id];
    await runcForCaller(host, isHeld ? forced : call.argv);
  } catch (error) {
    if (!(error instanceof RuncFailure) || readRuncRecord(container)) throw error;
    status = error.status;
  }
  if (life && 'epoch' in life) await giveUpLife(host, container, life, ending, resumeAfter(container));
  // The container is gone; litter that cannot be removed is no reason to say otherwise.
  await removeEmptyCgroups(container).catch(() => {});
  await dropTrial(host, container);
  await dropRollback(host, container).catch(() => {});
  dropScratch(host, container);
  await removeLitter(container);
  return status;
}

/** The job's own setting; undefined where its configuration is gone. */
function resumeAfter({ bundle }: ContainerIdentity): ResumeAfter | undefined {
  try {
    return resumeAfterOf(readContainerConfig(bundle).env);
  } catch {
    return undefined;
  }
}

/** Removes what runc and CRIU were given in a bundle whose container is gone. */
export async function removeLitter({ bundle }: ContainerIdentity): Promise<void> {
  forgetMarks({ bundle });
  for (const name of ['tardis-criu', 'tardis-dump', 'tardis-restore', 'tardis-stopped-tasks.json']) {
    await rm(join(bundle, name), { recursive: true, force: true }).catch(() => {});
  }
}
