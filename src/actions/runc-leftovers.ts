import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join, normalize } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { readContainerConfig } from './container-config.ts';
import { parseMountinfo } from './rootfs-location.ts';

/**
 * Takes away what a killed `runc restore` has left mounted below its record of a container: while criu works the root
 * file system is bound there (`criu-root`), and a `runc delete --force` that finds no state.json removes that
 * directory with all that is in it, the root file system's files through the mount (runc 1.1.5, delete.go).
 *
 * @throws where a mount stays: nothing may be deleted then.
 */
export async function unmountLeftovers({ root, id }: Pick<ContainerIdentity, 'root' | 'id'>): Promise<void> {
  const record = join(root, id);
  const mounts = mountsNow()
    .map(({ mountPoint }) => mountPoint)
    .filter((mountPoint) => mountPoint.startsWith(`${record}/`));
  if (mounts.length === 0) return;
  const { execa } = await import('execa');
  for (const mount of mounts.reverse()) await execa('umount', ['--lazy', mount]);
}

/** A killed task leaves its cgroup as soon as the kernel has taken it apart. */
const patienceMs = 2_000;

/**
 * Removes the empty cgroups of a container that runc does not know any more: a killed runc leaves them, and without
 * its record no later one finds them. A path that is not absolute is systemd's, which removes its scopes itself.
 */
export async function removeEmptyCgroups({ bundle }: Pick<ContainerIdentity, 'bundle'>): Promise<void> {
  const { cgroupsPath } = readContainerConfig(bundle);
  if (cgroupsPath?.startsWith('/') && normalize(cgroupsPath) !== '/') await removeCgroups(cgroupsPath);
}

/**
 * Removes a cgroup, and those in it, from all hierarchies, as soon as they are empty.
 *
 * @param cgroupsPath below the top of a hierarchy.
 */
export async function removeCgroups(cgroupsPath: string): Promise<void> {
  const deadline = Date.now() + patienceMs;
  const left = () =>
    mountsNow()
      .filter(({ type, root }) => /^cgroup2?$/.test(type) && root === '/')
      .map(({ mountPoint }) => join(mountPoint, cgroupsPath))
      .filter((directory) => existsSync(directory) && !isRemoved(directory));
  while (left().length > 0 && Date.now() < deadline) await delay(10);
}

function isRemoved(cgroup: string): boolean {
  try {
    for (const { name } of readdirSync(cgroup, { withFileTypes: true }).filter((entry) =>
      entry.isDirectory(),
    ))
      isRemoved(join(cgroup, name));
    rmdirSync(cgroup);
    return true;
  } catch {
    return false;
  }
}

const mountsNow = () => parseMountinfo(readFileSync('/proc/self/mountinfo', 'latin1'));
