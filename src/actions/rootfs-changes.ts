import type { RootfsLocation } from './rootfs-location.ts';
import { bufferOf } from './rootfs-paths.ts';
import { walkRootfs } from './rootfs-walk.ts';

/** A root file system's changes as relative paths; names are bytes and need not be UTF-8. */
export interface RootfsChanges {
  /** To be archived, parents before children; `.` carries the root directory's own mode, owner and time. */
  kept: Buffer[];
  /** To be removed before the archive is unpacked; `.` alone means everything. */
  removed: Buffer[];
  /** Left out: an archive cannot hold them, and CRIU binds them again. */
  sockets: Buffer[];
}

/**
 * Lists what a container changed in its root file system: for an overlay the difference to its lower layers, for
 * a plain directory everything, for a read-only one nothing.
 *
 * @throws {Problem} `rootfs-xattrs`, `rootfs-links` when the overlay's marks cannot be read
 */
export async function listRootfsChanges(location: RootfsLocation): Promise<RootfsChanges> {
  const { kept, removed, sockets } = await walkRootfs(location);
  return { kept: kept.map(bufferOf), removed: removed.map(bufferOf), sockets: sockets.map(bufferOf) };
}
