import { chmod, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { locateRootfs, refuseMountsBelow } from './rootfs-location.ts';
import { nulList, readable } from './rootfs-paths.ts';
import { packPaths } from './rootfs-tar.ts';
import { walkRootfs } from './rootfs-walk.ts';

/** The names of a saved root file system's two files, those of checkpointctl. */
export const diffArchive = 'rootfs-diff.tar';
export const deletedFiles = 'deleted.files';

/** What was saved of a root file system. */
export interface SavedRootfs {
  /** `overlay`: changes to the image's layers; `whole`: everything; `none`: it cannot be written to. */
  kind: 'overlay' | 'whole' | 'none';
  /** The archive's size. */
  bytes: number;
  /** How many paths are in the archive. */
  entries: number;
  /** How many paths are in the list of those to remove first. */
  removed: number;
  /** Left out, for people to read. */
  sockets: string[];
}

/**
 * Saves a container's root file system changes while the container is frozen: `rootfs-diff.tar`, a posix archive
 * of GNU tar, and `deleted.files`, the paths to remove before it is unpacked, each ended by a NUL. A list of `.`
 * means that the archive holds the whole root file system.
 *
 * @param rootfs the mounted root file system, `<bundle>/rootfs`
 * @param into an existing directory; files of an earlier attempt are overwritten
 * @throws {Problem} `rootfs-missing`, `rootfs-layers`, `rootfs-index`, `rootfs-mounts`, `rootfs-xattrs`, `rootfs-links`,
 * `rootfs-changed` when something wrote to it meanwhile, `rootfs-tar`
 */
export async function saveRootfs(rootfs: string, into: string): Promise<SavedRootfs> {
  const location = locateRootfs(rootfs);
  if (location.kind === 'overlay') refuseMountsBelow(location.rootfs);
  const { kept, removed, sockets } = await walkRootfs(location);
  const archive = join(into, diffArchive);
  await writePrivate(archive, '');
  await writePrivate(join(into, deletedFiles), nulList(removed));
  await packPaths(location.rootfs, kept, archive);
  return {
    kind: kinds[location.kind],
    bytes: (await stat(archive)).size,
    entries: kept.length,
    removed: removed.length,
    sockets: sockets.map(readable),
  };
}

const kinds = { overlay: 'overlay', plain: 'whole', readonly: 'none' } as const;

async function writePrivate(file: string, content: string | Buffer): Promise<void> {
  await writeFile(file, content, { mode: 0o600 });
  // The mode above counts only for a new file.
  await chmod(file, 0o600);
}
