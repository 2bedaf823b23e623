import { interruptionIn, isCreate } from '../machines/paths.ts';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { bundleFromIndex, indexedContainers, leaveIndex } from './container-index.ts';
import { removeLitter } from './delete-container.ts';
import type { Host } from './host.ts';
import { keyDirectory, readLedger } from './ledger.ts';
import { latestLife, thisHost } from './lives.ts';
import { takeLock } from './lock.ts';
import { reasonOf } from './problem.ts';
import { textOf } from './read-or-nothing.ts';
import { processStartTime } from './runc-state.ts';
import { readState, type StateRecord, stateFileOf } from './state-file.ts';

type Named = Pick<ContainerIdentity, 'root' | 'id'>;

/** How long another wrapper may take that works on the container: one that creates it holds its lock, and is left alone. */
const lockSeconds = 1;

/**
 * Ends what is left of the job in containers of this host whose `create` was cut short, before another container takes
 * the job up.
 *
 * An engine that dies over a `create` takes the wrapper with it and may never send a `delete`: containerd 1.6 knows the
 * shim again when it is back, but no task that could be deleted. Where runc or CRIU has come to its end meanwhile, the
 * job stands there, created or stopped, for nobody to start, and would count as one that carries on. Where another host
 * has taken the job up since, the ledger does not name that container any more: the index does.
 *
 * Throws nothing: what cannot be ended is as it was.
 */
export async function endHalfCreated(host: Host, container: ContainerIdentity): Promise<void> {
  try {
    const holder = latestLife(readLedger(keyDirectory(container)))?.claimant;
    if (!holder) return;
    const isHere = holder.host === thisHost(host);
    // It is being created, then.
    if (isHere && processStartTime(holder.wrapper.pid) === holder.wrapper.startTime) return;
    const others = isHere ? [holder] : indexedContainers(host.config.runDir);
    for (const other of others) {
      if (other.root === container.root && other.id === container.id) continue;
      await endCreateOf(host, other, container);
    }
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, 'what is left of an earlier create cannot be ended');
  }
}

async function endCreateOf(host: Host, other: Named, container: ContainerIdentity): Promise<void> {
  const { runDir } = host.config;
  const look = (): StateRecord | undefined => halfCreated(runDir, other, container);
  if (!look()) return;
  const lock = takeLock(runDir, other.root, other.id, {
    timeoutSeconds: lockSeconds,
    // What the dead wrapper has left at work is of no use any more.
    orphanSeconds: 0,
    onOrphans: (pids) => host.log.warn({ other: other.id, pids }, 'ended what was at work on it'),
  });
  let gone = false;
  try {
    const left = look();
    if (!left) return;
    host.log.warn({ other: other.id }, 'the create of another container was cut short: it is ended');
    const { endUnanswered } = await import('./recover.ts');
    const holding = { ...host, locks: [...(host.locks ?? []), lock.descriptor] };
    gone = await endUnanswered(holding, { container: left, interruption: interruptionIn(left.snapshot) });
    if (!gone) return;
    // Nobody may ever delete it.
    await removeLitter(left);
    leaveIndex(runDir, left);
  } finally {
    if (gone) lock.discard();
    else lock.release();
  }
}

/** What is known of a container of the same job, where its state is that of a create that has not come to its end. */
function halfCreated(
  runDir: string,
  { root, id }: Named,
  { key, imageRoot }: ContainerIdentity,
): StateRecord | undefined {
  const bundle = bundleFromIndex(runDir, root, id);
  // One of many, mostly of other jobs: those are not parsed.
  if (bundle === undefined || !textOf(stateFileOf(bundle)).includes(JSON.stringify(key))) return undefined;
  const known = readState(stateFileOf(bundle));
  if (known.id !== id || known.root !== root || known.key !== key || known.imageRoot !== imageRoot)
    return undefined;
  return isCreate(interruptionIn(known.snapshot)) ? known : undefined;
}
