import { join } from 'node:path';
import fs from 'fs-extra';
import type { RestoreInput } from '../machines/restore.ts';
import { lastCriuErrors } from './criu-log.ts';
import { writeCriuOptions } from './criu-options.ts';
import type { Host } from './host.ts';
import { readManifest } from './manifest.ts';
import { Problem, reasonOf } from './problem.ts';
import { runcForTardis } from './runc.ts';
import { isUnified, unifiedCgroupOf } from './unified-cgroup.ts';

/**
 * Restores the image's memory as this container, every task stopped.
 *
 * runc gets a log of its own: an error line in the caller's would be shown as the `create`'s, although the
 * container then starts from scratch. `--no-subreaper`: the init's new parent is the shim (as containerd's own
 * restore has it). The container's standard streams are the wrapper's, handed on untouched.
 *
 * @throws Problem `restore` with CRIU's reason.
 */
export async function restoreMemory(host: Host, { container, image, call }: RestoreInput): Promise<void> {
  const { dump } = readManifest(image.directory);
  const work = join(container.bundle, 'tardis-restore');
  const log = join(work, 'runc.log');
  await fs.emptyDir(work);
  const keepsConnections = dump.flags.includes('--tcp-established');
  const HOME = writeCriuOptions(container.bundle, 'restore', keepsConnections, cgroupRoot(container, call));
  try {
    await runcForTardis(
      host,
      [
        ...call.globals,
        ...['--log', log, '--log-format', 'json', 'restore', '--detach', '--no-subreaper'],
        ...['--image-path', join(image.directory, 'checkpoint'), '--work-path', work],
        ...['--bundle', container.bundle],
        ...call.restoreFlags,
        ...dump.flags,
        container.id,
      ],
      { env: { HOME }, stdio: 'inherit' },
    );
  } catch (error) {
    const words = lastCriuErrors(join(work, 'restore.log')) ?? lastLogMessage(log) ?? reasonOf(error);
    throw new Problem('restore', `CRIU could not restore the image: ${words}`, { cause: error });
  }
}

/**
 * CRIU restores tasks into the cgroup they were dumped in, unless it is told another. For v1 runc tells it, for v2
 * it does not (libcontainer/criu_linux.go, criuApplyCgroups): the job would run in the old container's cgroup,
 * without this one's limits, and out of reach of its freezer. The empty controller is v2.
 */
function cgroupRoot({ id, bundle }: RestoreInput['container'], call: RestoreInput['call']): string[] {
  if (!isUnified()) return [];
  const { linux } = fs.readJsonSync(join(bundle, 'config.json')) as { linux?: { cgroupsPath?: string } };
  const systemd = call.globals.some((word) => /^--?systemd-cgroup(=true)?$/.test(word));
  return [`cgroup-root :${unifiedCgroupOf({ id, cgroupsPath: linux?.cgroupsPath, systemd })}`];
}

function lastLogMessage(log: string): string | undefined {
  try {
    const lines = fs.readFileSync(log, 'utf8').trim().split('\n');
    return (JSON.parse(lines.at(-1) ?? '') as { msg?: string }).msg;
  } catch {
    return undefined;
  }
}
