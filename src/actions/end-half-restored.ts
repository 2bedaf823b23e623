import { interruptionIn } from '../machines/paths.ts';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { bundleFromIndex } from './container-index.ts';
import type { Host } from './host.ts';
import { keyDirectory, readLedger } from './ledger.ts';
import { latestLife, thisHost } from './lives.ts';
import { takeLock } from './lock.ts';
import { reasonOf } from './problem.ts';
import { processStartTime } from './runc-state.ts';
import { readState, type StateRecord, stateFileOf } from './state-file.ts';

/**
 * Ends what is left of the job in a container of this host whose restore was cut short, before another container takes
 * the job up.
 *
 * An engine that dies over a `create` takes the wrapper with it and may never send a `delete`: containerd 1.6 knows the
 * shim again when it is back, but no task that could be deleted. Where CRIU has come to its end meanwhile, the job stands
 * there stopped, for nobody to start, and would count as one that carries on.
 *
 * Throws nothing: what cannot be ended is as it was.
 */
export async function endHalfRestored(host: Host, container: ContainerIdentity): Promise<void> {
  try {
    const holder = latestLife(readLedger(keyDirectory(container)))?.claimant;
    if (!holder || holder.host !== thisHost(host)) return;
    if (holder.root === container.root && holder.id === container.id) return;
    // It is being restored, then.
    if (processStartTime(holder.wrapper.pid) === holder.wrapper.startTime) return;
    const { runDir, lockTimeoutSeconds } = host.config;
    const look = (): StateRecord | undefined => halfRestored(runDir, holder, container);
    if (!look()) return;
    host.log.warn({ other: holder.id }, 'the restore of another container was cut short: it is ended');
    const lock = takeLock(runDir, holder.root, holder.id, {
      timeoutSeconds: lockTimeoutSeconds,
      // What the dead wrapper has left at work is of no use any more.
      orphanSeconds: 0,
      onOrphans: (pids) => host.log.warn({ other: holder.id, pids }, 'ended what was at work on it'),
    });
    try {
      const left = look();
      if (!left) return;
      const { recover } = await import('./recover.ts');
      const holding = { ...host, locks: [...(host.locks ?? []), lock.descriptor] };
      await recover(holding, { container: left, interruption: interruptionIn(left.snapshot) });
    } finally {
      lock.release();
    }
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, 'what is left of an earlier restore cannot be ended');
  }
}

/** What is known of a container of the same job, where its state is that of a restore. */
function halfRestored(
  runDir: string,
  { root, id }: { readonly root: string; readonly id: string },
  { key, imageRoot }: ContainerIdentity,
): StateRecord | undefined {
  const bundle = bundleFromIndex(runDir, root, id);
  const known = bundle === undefined ? undefined : readState(stateFileOf(bundle));
  if (known?.id !== id || known.root !== root || known.key !== key || known.imageRoot !== imageRoot) return;
  return interruptionIn(known.snapshot)?.state === 'alive.restoring' ? known : undefined;
}
