import { execa } from 'execa';
import type { RestoreInput } from '../machines/restore.ts';
import { readContainerConfig } from './container-config.ts';
import { definitionIn, readDefinition } from './definition.ts';
import { awaitFrozen, beginFreeze, freezerOf, processesIn } from './freezer.ts';
import { hideContinue } from './hide-continue.ts';
import type { Host } from './host.ts';
import { readManifest } from './manifest.ts';
import { readManifestKeys } from './manifest-keys.ts';
import { Problem } from './problem.ts';
import { putInForce } from './put-in-force.ts';
import { isInitAlive, readRuncRecord } from './runc-state.ts';
import { pidInContainer, signalTask } from './stopped-tasks.ts';

/**
 * Turns "every task stopped", as CRIU leaves a restore, into "every task frozen where it was dumped", puts the new container's
 * definition into force, and brings `lo` up, so that the first instruction at `start` finds everything in place.
 *
 * The order makes the hold invisible to the job: the tasks are continued while they are frozen, so no parent ever
 * runs to see its child stopped. Before Linux 6.1 a v1 freezer stays in FREEZING until stopped tasks are
 * continued; so the freeze is ordered first and awaited last. Tasks that were stopped when dumped are not
 * continued. Those that would see the signal by which the others are have it taken back while they are frozen.
 *
 * @throws Problem `hold` where the job is gone already, `freezer`, `loopback`, `definition`.
 */
export async function holdRestored(host: Host, { container, image }: RestoreInput): Promise<void> {
  const record = readRuncRecord(container);
  if (!record || !isInitAlive(record))
    throw new Problem('hold', 'the restored job was gone before it could be held');
  const freezer = freezerOf(record);
  beginFreeze(freezer);
  const stayStopped = new Set(
    readManifest(image.directory, readManifestKeys(host.config.manifestKeys)).dump.stoppedTasks,
  );
  const pids = processesIn(freezer.directory);
  // Restored into another cgroup, it would neither be held nor ever be continued.
  if (!pids.includes(record.pid)) {
    throw new Problem('hold', `the restored job is not in ${freezer.directory}, where it could be held`);
  }
  for (const pid of pids) {
    if (!stayStopped.has(pidInContainer(pid) ?? -1)) signalTask(pid, 'SIGCONT');
  }
  await awaitFrozen(freezer);
  await hideContinue(host, pids);
  const config = readContainerConfig(container.bundle);
  const [old, now] = [definitionIn(image.directory), readDefinition(config.text)];
  await putInForce(host, { init: record.pid, pids }, old, now);
  if (config.hasFreshNetwork) await bringLoopbackUp(host, record.pid);
}

/** CRIU makes an empty network namespace, in which even `lo` is down. */
async function bringLoopbackUp(host: Host, pid: number): Promise<void> {
  const { exitCode, all } = await execa(
    'nsenter',
    [`--net=/proc/${pid}/ns/net`, 'ip', 'link', 'set', 'lo', 'up'],
    {
      stdin: 'ignore',
      all: true,
      env: host.env,
      extendEnv: false,
      reject: false,
    },
  );
  if (exitCode !== 0) throw new Problem('loopback', `cannot bring lo up in the container: ${all}`);
}
