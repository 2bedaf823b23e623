import type { RuncStep } from '../machines/container-context.ts';
import { freezeContainer, thawContainer } from './freeze-container.ts';
import { isFrozen } from './freezer.ts';
import type { Host } from './host.ts';
import { reasonOf } from './problem.ts';
import { runcForCaller } from './runc.ts';
import { isInitAlive, readRuncRecord } from './runc-state.ts';

/**
 * `runc pause`, with more patience: runc 1.1 asks a v1 freezer a thousand times in a row and gives up ("unable to
 * freeze") where a host is so loaded that a task is not scheduled meanwhile (seen with 200 containers that were to be
 * checkpointed together). A frozen cgroup is all that runc means by paused, so Tardis may finish it.
 *
 * @throws RuncFailure where the container is not running, or cannot be frozen: it runs on then.
 */
export async function pauseContainer(host: Host, { container, call }: RuncStep): Promise<void> {
  try {
    await runcForCaller(host, call.argv);
  } catch (failure) {
    const record = readRuncRecord(container);
    if (!record?.freezer || !isInitAlive(record) || isFrozen(record.freezer)) throw failure;
    try {
      await freezeContainer(container);
    } catch (error) {
      thawContainer(container);
      host.log.warn({ reason: reasonOf(error) }, 'neither runc nor Tardis could freeze the container');
      throw failure;
    }
    host.log.info({ reason: reasonOf(failure) }, 'runc gave the freezer up: Tardis froze the container');
  }
}
