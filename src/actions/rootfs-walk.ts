import { listOtherNames } from './rootfs-links.ts';
import { mountsBelow, type OverlayRootfs, type RootfsLocation } from './rootfs-location.ts';
import {
  type BytePath,
  bytesOf,
  type Entry,
  join,
  lookInside,
  parentOf,
  readDirectory,
  statsAt,
} from './rootfs-paths.ts';
import { readXattrs, type Xattrs } from './rootfs-xattrs.ts';

/** What differs between a root file system and the image below it, as relative byte paths. */
export interface RootfsWalk {
  /** To be archived, parents before children, `.` first. */
  kept: BytePath[];
  /** To be removed before the archive is unpacked; `.` means everything. */
  removed: BytePath[];
  /** Left out of `kept`: an archive cannot hold them, and CRIU binds them again. */
  sockets: BytePath[];
  /** Of `kept` the directories that the image has as directories too. */
  shared: BytePath[];
  /** The topmost paths that are not the image's: new, changed, replaced or deleted. */
  changed: BytePath[];
}

type Below = { kind: 'none' | 'other' } | { kind: 'directory'; lowers: BytePath[] };

/**
 * Walks a root file system for its changes. Of an overlay the upper layer says *what* changed; what a replaced
 * directory now holds is read through the merged view, for the upper layer may keep only part of it.
 *
 * Naming too much as removed does no harm: whatever is removed is archived again with all it holds.
 *
 * @throws {Problem} `rootfs-xattrs`, `rootfs-links`
 */
export async function walkRootfs(location: RootfsLocation): Promise<RootfsWalk> {
  const walk: RootfsWalk = { kept: [], removed: [], sockets: [], shared: [], changed: [] };
  if (location.kind === 'plain') {
    walk.removed.push('.');
    keepTree(walk, bytesOf(location.rootfs), '.', new Set(mountsBelow(location.rootfs).map(bytesOf)));
  }
  if (location.kind === 'overlay') await walkOverlay(walk, location);
  return walk;
}

async function walkOverlay(walk: RootfsWalk, location: OverlayRootfs): Promise<void> {
  const rootfs = bytesOf(location.rootfs);
  const upperdir = bytesOf(location.upperdir);
  const upper = readUpper(upperdir);
  const directories = [...upper.keys()].map((path) => `${upperdir}/${path}`);
  const marks = await readXattrs(directories, '^(trusted|user)\\.overlay\\.(opaque|redirect)$');
  visit('.', location.lowerdirs.map(bytesOf));
  if ([...upper.keys()].some((path) => marksOf(path, 'redirect') !== undefined))
    await keepOtherNames(walk, rootfs);

  function visit(directory: BytePath, lowers: BytePath[]): void {
    walk.kept.push(directory);
    walk.shared.push(directory);
    const lookBelow = readLowers(lowers);
    const hidden = hiddenNames(directory);
    for (const entry of upper.get(directory) ?? []) {
      const path = join(directory, entry.name);
      const below = lookBelow(entry.name);
      if (entry.kind === 'directory' && below.kind === 'directory' && !isReplaced(path)) {
        visit(path, below.lowers);
        continue;
      }
      walk.changed.push(path);
      if (isWhiteout(`${upperdir}/${path}`, entry) || hidden?.has(entry.name)) walk.removed.push(path);
      else if (entry.kind === 'directory') {
        walk.removed.push(path);
        keepTree(walk, rootfs, path);
      } else if (entry.kind === 'socket') {
        walk.sockets.push(path);
        if (below.kind !== 'none') walk.removed.push(path);
      } else {
        walk.kept.push(path);
        if (below.kind === 'directory') walk.removed.push(path);
      }
    }
  }

  function marksOf(path: BytePath, name: 'opaque' | 'redirect'): string | undefined {
    const found: Xattrs | undefined = marks.get(`${upperdir}/${path}`);
    return found?.get(`trusted.overlay.${name}`) ?? found?.get(`user.overlay.${name}`);
  }

  function isReplaced(path: BytePath): boolean {
    return marksOf(path, 'opaque') === hex('y') || marksOf(path, 'redirect') !== undefined;
  }

  /**
   * A directory marked `opaque=x` may hold whiteouts that are empty files with an attribute (kernel
   * Documentation/filesystems/overlayfs.rst); they are the names that the merged view does not show.
   */
  function hiddenNames(directory: BytePath): Set<BytePath> | undefined {
    if (marksOf(directory, 'opaque') !== hex('x')) return undefined;
    const shown = new Set(readDirectory(`${rootfs}/${directory}`).map(({ name }) => name));
    const names = (upper.get(directory) ?? []).map(({ name }) => name);
    return new Set(names.filter((name) => !shown.has(name)));
  }
}

/** Keeps a path with everything below it, read through the merged view. */
function keepTree(walk: RootfsWalk, rootfs: BytePath, top: BytePath, mounts?: Set<BytePath>): void {
  const { paths, sockets } = listTree(rootfs, top, mounts);
  for (const path of paths) walk.kept.push(path);
  for (const path of sockets) walk.sockets.push(path);
}

/**
 * A renamed directory still shares the files in it with their other names in the image. Those names have not
 * changed, but must be archived with it to be links again.
 */
async function keepOtherNames(walk: RootfsWalk, rootfs: BytePath): Promise<void> {
  const kept = new Set(walk.kept);
  const keep = (path: BytePath): void => {
    if (kept.has(path)) return;
    keep(parentOf(path));
    kept.add(path);
    walk.kept.push(path);
  };
  for (const path of await listOtherNames(rootfs, kept, lookInside(rootfs))) keep(path);
}

/** Lists a directory and all below it, parents first, sockets apart; `skip` holds absolute paths not to enter. */
export function listTree(root: BytePath, top: BytePath, skip: Set<BytePath> = new Set()) {
  const paths: BytePath[] = [];
  const sockets: BytePath[] = [];
  const enter = (directory: BytePath): void => {
    paths.push(directory);
    if (skip.has(`${root}/${directory}`)) return;
    for (const { name, kind } of readDirectory(`${root}/${directory}`)) {
      const path = join(directory, name);
      if (kind === 'directory') enter(path);
      else if (kind === 'socket') sockets.push(path);
      else paths.push(path);
    }
  };
  enter(top);
  return { paths, sockets };
}

/** Reads all of the upper layer's directories, by relative path. */
function readUpper(upperdir: BytePath): Map<BytePath, Entry[]> {
  const found = new Map<BytePath, Entry[]>();
  const enter = (directory: BytePath): void => {
    const entries = readDirectory(`${upperdir}/${directory}`);
    found.set(directory, entries);
    for (const { name, kind } of entries) if (kind === 'directory') enter(join(directory, name));
  };
  enter('.');
  return found;
}

/** Reads one directory in each lower layer that has it, and answers what a name in it is to the layer above. */
function readLowers(lowers: BytePath[]): (name: BytePath) => Below {
  const layers = lowers.map((lower) => ({
    lower,
    entries: new Map(readDirectory(lower).map((entry) => [entry.name, entry])),
  }));
  return (name) => {
    const found: BytePath[] = [];
    for (const { lower, entries } of layers) {
      const entry = entries.get(name);
      if (!entry) continue;
      const path = `${lower}/${name}`;
      if (entry.kind === 'directory') found.push(path);
      else if (found.length > 0) break;
      else return { kind: isWhiteout(path, entry) ? 'none' : 'other' };
    }
    return found.length > 0 ? { kind: 'directory', lowers: found } : { kind: 'none' };
  };
}

/** An overlay marks a deleted name by a character device 0:0. */
function isWhiteout(path: BytePath, entry: Entry): boolean {
  return entry.kind === 'device' && statsAt(path)?.rdev === 0;
}

function hex(text: string): string {
  return `0x${Buffer.from(text).toString('hex')}`;
}
