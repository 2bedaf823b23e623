import { join } from 'node:path';
import fs from 'fs-extra';
import type { DeleteStep } from '../machines/container-context.ts';
import { leaveIndex } from './container-index.ts';
import { endingOf, forgetKill } from './ending.ts';
import type { Host } from './host.ts';
import { closeLife } from './lives.ts';
import { forgetJob } from './retention.ts';
import { dropRollback } from './rollback.ts';
import { RuncFailure, runcForCaller } from './runc.ts';
import { readRuncRecord } from './runc-state.ts';

/**
 * Deletes a container and Tardis's own entry for it.
 *
 * @returns runc's status: 1 also for a container that had been gone before (after a checkpoint with exit), which
 * the shim tells from runc's words "does not exist".
 * @throws RuncFailure where runc keeps the container.
 */
export async function deleteContainer(host: Host, { container, call, epoch }: DeleteStep): Promise<number> {
  const ending = endingOf(container);
  let status = 0;
  try {
    await runcForCaller(host, call.argv);
  } catch (error) {
    if (!(error instanceof RuncFailure) || readRuncRecord(container)) throw error;
    status = error.status;
  }
  if (epoch !== undefined) {
    closeLife(host, container, epoch, ending);
    forgetJob(host, container);
  }
  leaveIndex(host.config.runDir, container);
  // The container is gone; litter that cannot be removed is no reason to say otherwise.
  await dropRollback(container).catch(() => {});
  forgetKill(container);
  for (const name of ['tardis-criu', 'tardis-restore']) {
    await fs.remove(join(container.bundle, name)).catch(() => {});
  }
  return status;
}
