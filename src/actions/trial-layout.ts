import { realpathSync, type Stats, statfsSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { locateRootfs } from './rootfs-location.ts';

/** An overlay of a trial's own: what it shows can be changed, and what it shows it of stays as it is. */
export interface TrialOverlay {
  /** A directory of its own, for its layers. */
  readonly home: string;
  readonly target: string;
  /** The uppermost first. */
  readonly lowerdirs: readonly string[];
  /** Mount options that say how the lower layers are read. */
  readonly layerOptions: readonly string[];
}

/**
 * What a copy's root file system is mounted from: the image's own layers where those of the job are an overlay's; what
 * cannot be written to, as it is. Undefined for a plain directory: the image has all of it.
 */
export function rootfsOverlayOf(rootfs: string, trial: string): TrialOverlay | undefined {
  const location = locateRootfs(rootfs);
  if (location.kind === 'plain') return undefined;
  const { lowerdirs, layerOptions } =
    location.kind === 'overlay' ? location : { lowerdirs: [location.rootfs], layerOptions: [] };
  return { home: join(trial, 'layers'), target: join(trial, 'rootfs'), lowerdirs, layerOptions };
}

/**
 * File systems that have no files of their own, by statfs(2)'s type (linux/magic.h): proc, sysfs, cgroup, cgroup2, devpts,
 * debugfs, tracefs, securityfs, bpf. None can be an overlay's layer, and a job keeps nothing there.
 */
const pseudo: ReadonlySet<number> = new Set([
  ...[0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x1cd1],
  ...[0x64626720, 0x74726163, 0x73636673, 0xcafe4a11],
]);

/** Stand-ins for what a container has bind-mounted. */
export interface StandIns {
  readonly overlays: readonly TrialOverlay[];
  readonly standInFor: (source: string) => string;
}

/**
 * Gives each bind mount's source a stand-in, which looks the same: an overlay over it, or, for a file, over the directory that it
 * is in. CRIU makes files on volumes that are open and deleted, takes sockets away before it binds them, takes locks,
 * and the death of a copy marks robust mutexes in shared memory (get_robust_list(2)): in an overlay all this is done to
 * other files than the job's.
 *
 * What is neither a file nor a directory (a socket, a device) is shown as it is, and so is what is not there.
 *
 * @param bundle of the container, which relative sources are taken from.
 */
export function standInsFor(sources: readonly string[], bundle: string, trial: string): StandIns {
  const overlays = new Map<string, TrialOverlay>();
  const shown = new Map<string, string>();
  const showDirectory = (directory: string): string => {
    const home = join(trial, 'volumes', String(overlays.size));
    const known = overlays.get(directory);
    const overlay = known ?? { home, target: join(home, 'shown'), lowerdirs: [directory], layerOptions: [] };
    overlays.set(directory, overlay);
    return overlay.target;
  };
  for (const source of sources) {
    const path = resolve(bundle, source);
    const found = lookAt(path);
    let standIn = path;
    if (found?.stats.isDirectory()) standIn = showDirectory(found.path);
    else if (found?.stats.isFile()) standIn = join(showDirectory(dirname(found.path)), basename(found.path));
    shown.set(source, standIn);
  }
  return { overlays: [...overlays.values()], standInFor: (source) => shown.get(source) ?? source };
}

/** Undefined where there is nothing of which an overlay could be made. */
function lookAt(source: string): { readonly path: string; readonly stats: Stats } | undefined {
  try {
    const path = realpathSync(source);
    return pseudo.has(statfsSync(path).type) ? undefined : { path, stats: statSync(path) };
  } catch {
    return undefined;
  }
}
