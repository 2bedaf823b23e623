import { join } from 'node:path';
import fs from 'fs-extra';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { keepingCgroup2Options } from './cgroup2-options.ts';
import { tasksDumpedStopped } from './criu-image.ts';
import { lastCriuErrors, lastLine } from './criu-log.ts';
import { writeCriuOptions } from './criu-options.ts';
import { dumpPlaceOf } from './dump-place.ts';
import { freezerOf, isFrozen, processesIn } from './freezer.ts';
import type { Host } from './host.ts';
import { partialOf } from './image-store.ts';
import { endLeftCriu } from './left-criu.ts';
import { Problem, reasonOf } from './problem.ts';
import { runcForTardis } from './runc.ts';
import { isInitAlive, readRuncRecord } from './runc-state.ts';
import { freshScratch } from './scratch.ts';
import { pidInContainer, signalTask, stoppedTasksIn } from './stopped-tasks.ts';
import { hasTcpConnections } from './tcp-connections.ts';

/** CRIU's own reports, which checkpointctl's users look for at the top of an image. */
const reports = ['dump.log', 'stats-dump'];

/** In the bundle, which no file server can keep from an undo. */
const stoppedFile = ({ bundle }: Pick<ContainerIdentity, 'bundle'>): string =>
  join(bundle, 'tardis-stopped-tasks.json');

/** Where CRIU and runc log a dump: on the host's own file system, so that how far it got can always be told. */
const workOf = ({ bundle }: Pick<ContainerIdentity, 'bundle'>): string => join(bundle, 'tardis-dump');

/**
 * Dumps a frozen container's memory into the partial image and leaves it as it is: frozen, and whole.
 *
 * CRIU thaws a frozen cgroup while it holds every task by ptrace, and freezes it again before it lets them go
 * (criu/seize.c, freezer_restore_state): no task runs in between. Under a v1 freezer ptrace waits for ever for a
 * task that is both stopped and frozen (seen on Linux 6.18), so stopped tasks are continued while they are frozen,
 * remembered, and stopped again.
 *
 * @throws Problem `dump` with CRIU's reason; the container is whole and frozen then, too.
 */
export async function dumpMemory(host: Host, step: CheckpointStep): Promise<void> {
  const { container, call, request, image } = step;
  const dump = dumpPlaceOf(step);
  const partial = partialOf(image);
  const work = workOf(container);
  if (image.dumpDirectory) freshScratch(host, container);
  fs.emptyDirSync(dump);
  fs.emptyDirSync(work);
  const freezer = freezerOf(readRuncRecord(container));
  const keepsConnections = call.switches.includes('tcp-established');
  // An image that was dumped with `tcp-close` asks for it again at its restore, and runc has no flag for it: where
  // there is nothing to close, the caller's own restore shall not be refused. New clients may still come.
  const hasNone = !keepsConnections && !hasTcpConnections(processesIn(freezer.directory));
  const HOME = hasNone
    ? writeCriuOptions(container.bundle, 'dump', true, ['skip-in-flight'])
    : writeCriuOptions(container.bundle, 'dump', keepsConnections);
  const log = join(work, 'runc.log');
  const stopped = freezer.version === 1 ? stoppedTasksIn(freezer.directory) : [];
  fs.writeJsonSync(stoppedFile(container), stopped.map(pidInContainer), { mode: 0o600 });
  host.watch?.guardian?.stop(stopped);
  host.watch?.tells(() => lastLine(join(work, 'dump.log')));
  for (const pid of stopped) signalTask(pid, 'SIGCONT');
  try {
    const argv = [
      ...call.globals,
      ...['--log', log, '--log-format', 'json', 'checkpoint'],
      ...['--image-path', dump, '--work-path', work, '--leave-running'],
      ...request.flags,
      // Without it the dump of any job that holds a lock fails, with it nothing is different for the others.
      ...(call.switches.includes('file-locks') ? [] : ['--file-locks']),
      container.id,
    ];
    await keepingCgroup2Options(host, () => runcForTardis(host, argv, { env: { HOME } }));
    if (!isFrozen(freezer)) {
      throw new Problem('dump', 'the container ran on during its dump: the image may not fit its files');
    }
  } catch (error) {
    await endLeftCriu(work);
    giveReports(work, request.workPath);
    const words = lastCriuErrors(join(work, 'dump.log'));
    throw new Problem('dump', `CRIU could not dump the container: ${words ?? reasonOf(error)}`, {
      cause: error,
    });
  } finally {
    // They are frozen: they stop as soon as they are thawed.
    for (const pid of stopped) signalTask(pid, 'SIGSTOP');
  }
  giveReports(work, request.workPath);
  for (const name of reports) {
    if (fs.existsSync(join(work, name))) fs.copySync(join(work, name), join(partial, name));
  }
  fs.rmSync(work, { recursive: true });
}

/**
 * Stops the tasks again that a dump had continued which did not come to its end, while they are frozen still. Harmless
 * where that was done.
 */
export function stopTasksAgain(container: ContainerIdentity): void {
  const file = stoppedFile(container);
  const record = readRuncRecord(container);
  if (!record?.freezer || !isInitAlive(record) || !fs.existsSync(file)) return;
  const stopped = new Set(fs.readJsonSync(file) as (number | null)[]);
  if (stopped.size === 0 || !isFrozen(record.freezer)) return;
  for (const pid of processesIn(record.freezer.directory)) {
    if (stopped.has(pidInContainer(pid) ?? -1)) signalTask(pid, 'SIGSTOP');
  }
}

/** The pids (in the container) of the tasks that were stopped when the container was dumped. */
export function readStoppedTasks(container: ContainerIdentity, partial: string): number[] {
  const remembered = fs.readJsonSync(stoppedFile(container)) as (number | null)[];
  const pids = [
    ...remembered.filter((pid) => pid !== null),
    ...tasksDumpedStopped(join(partial, 'checkpoint')),
  ];
  return [...new Set(pids)].sort((a, b) => a - b);
}

/**
 * The caller finds CRIU's reports in its own work path: containerd copies the log to the bundle after a failure, podman reads
 * the statistics (`--print-stats`).
 */
function giveReports(work: string, callersPath: string | undefined): void {
  if (!callersPath) return;
  try {
    fs.mkdirSync(callersPath, { recursive: true, mode: 0o700 });
    for (const name of reports) {
      if (fs.existsSync(join(work, name))) fs.copySync(join(work, name), join(callersPath, name));
    }
  } catch {
    // A report that cannot be copied is no reason to lose a checkpoint.
  }
}
