import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { forgetHeld } from './ending.ts';
import { freezerOf, thaw } from './freezer.ts';
import type { Host } from './host.ts';
import { isInitAlive, readRuncRecord } from './runc-state.ts';

/**
 * Lets a held container go. Where it is gone already this succeeds too: a `start` that succeeded and a job that
 * ended at once is what the engines know how to report, an exit status included.
 */
export function releaseHeld(host: Host, container: ContainerIdentity): void {
  const record = readRuncRecord(container);
  if (record && isInitAlive(record)) {
    forgetHeld(container);
    thaw(freezerOf(record));
    return;
  }
  host.log.warn('the restored job had ended before its start');
}
