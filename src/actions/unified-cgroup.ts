import { readFileSync, statfsSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import type { ContainerIdentity, RuncCall } from '../machines/vocabulary.ts';
import { readContainerConfig } from './container-config.ts';

/** CGROUP2_SUPER_MAGIC (statfs(2)): as runc tells a host with cgroup v2 alone from all others. */
const cgroup2Magic = 0x63677270;

export const isUnified = (mountPoint = '/sys/fs/cgroup'): boolean => {
  try {
    return statfsSync(mountPoint).type === cgroup2Magic;
  } catch {
    return false;
  }
};

/** What of a runtime configuration and a command line says where a container's cgroup is. */
export interface CgroupWish {
  readonly id: string;
  /** `linux.cgroupsPath`. */
  readonly cgroupsPath: string | undefined;
  /** Whether runc was given `--systemd-cgroup`. */
  readonly systemd: boolean;
}

/**
 * The cgroup that runc gives a container under cgroup v2, below the hierarchy's top (runc 1.1 to 1.3:
 * libcontainer/specconv, cgroups/fs2/defaultpath.go, cgroups/systemd/v2.go).
 *
 * @param ownCgroup the line of /proc/self/cgroup, which paths that are not absolute are taken from.
 */
export function unifiedCgroupOf(
  { id, cgroupsPath, systemd }: CgroupWish,
  ownCgroup = readFileSync('/proc/self/cgroup', 'utf8'),
): string {
  if (systemd) {
    const [slice, prefix, name = ''] = cgroupsPath ? cgroupsPath.split(':') : ['', 'runc', id];
    const unit = name.endsWith('.slice') ? name : `${prefix ? `${prefix}-` : ''}${name}.scope`;
    return join(sliceDirectory(slice || 'system.slice'), unit);
  }
  if (cgroupsPath?.startsWith('/')) return normalize(cgroupsPath);
  const own = /^0::(.*)$/m.exec(ownCgroup)?.[1] ?? '/';
  return join(dirname(own), join('/', cgroupsPath || id));
}

/**
 * CRIU restores tasks into the cgroup they were dumped in, unless it is told another. For v1 runc tells it, for v2
 * it does not (libcontainer/criu_linux.go, criuApplyCgroups): the job would run in the old container's cgroup,
 * without this one's limits, and out of reach of its freezer. The empty controller is v2.
 */
export function cgroupRootOptions({ id, bundle }: ContainerIdentity, call: RuncCall): string[] {
  if (!isUnified()) return [];
  const { cgroupsPath } = readContainerConfig(bundle);
  const systemd = call.switches.includes('systemd-cgroup');
  return cgroupRootAt(unifiedCgroupOf({ id, cgroupsPath, systemd }));
}

/** The same, for a cgroup that is known. */
export const cgroupRootAt = (cgroup: string): string[] => (isUnified() ? [`cgroup-root :${cgroup}`] : []);

/** `a-b.slice` is in `a.slice` (systemd.slice(5)); `-.slice` is the top. */
function sliceDirectory(slice: string): string {
  if (slice === '-.slice') return '/';
  const parts = slice.replace(/\.slice$/, '').split('-');
  return join('/', ...parts.map((_, i) => `${parts.slice(0, i + 1).join('-')}.slice`));
}
