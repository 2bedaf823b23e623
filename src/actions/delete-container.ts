import { join } from 'node:path';
import fs from 'fs-extra';
import type { RuncStep } from '../machines/container-context.ts';
import { leaveIndex } from './container-index.ts';
import type { Host } from './host.ts';
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
export async function deleteContainer(host: Host, { container, call }: RuncStep): Promise<number> {
  let status = 0;
  try {
    await runcForCaller(host, call.argv);
  } catch (error) {
    if (!(error instanceof RuncFailure) || readRuncRecord(container)) throw error;
    status = error.status;
  }
  leaveIndex(host.config.runDir, container);
  // The container is gone; litter that cannot be removed is no reason to say otherwise.
  await dropRollback(container).catch(() => {});
  for (const name of ['tardis-criu', 'tardis-restore']) {
    await fs.remove(join(container.bundle, name)).catch(() => {});
  }
  return status;
}
