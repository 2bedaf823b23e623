import { existsSync, readFileSync, statSync } from 'node:fs';
import { textOf } from './read-or-nothing.ts';
import { isInside } from './real-path.ts';
import { decodeField, parseMountinfo } from './rootfs-location.ts';

/**
 * A text that changes while the kernel writes to the file system that a directory is on, for a program that only waits
 * for that (sync(1)): it sleeps, and uses no CPU.
 *
 * Read from the kernel's counters alone, so a file server that is gone cannot keep the reader waiting; but the
 * directory itself is looked at here, before there is anything to wait for.
 *
 * - a disk: sectors written, `/sys/dev/block/<major>:<minor>/stat` (Documentation/block/stat);
 * - NFS: bytes sent to the server, `/proc/self/mountstats` (nfs-utils, mountstats(8));
 * - else: what is dirty and under way on the whole host, `/proc/meminfo`, which other programs change as well.
 */
export function writebackCounter(directory: string): () => string {
  const { dev } = statSync(directory);
  // gnu_dev_major and gnu_dev_minor (sys/sysmacros.h), of numbers below 2^32.
  const [major, minor] = [(dev >>> 8) & 0xfff, (dev & 0xff) | ((dev >>> 12) & 0xfff00)];
  const disk = `/sys/dev/block/${major}:${minor}/stat`;
  if (existsSync(disk)) return () => textOf(disk).trim().split(/\s+/)[6] ?? '';
  const mount = parseMountinfo(readFileSync('/proc/self/mountinfo', 'latin1')).findLast(
    ({ mountPoint, type }) => type.startsWith('nfs') && isInside(mountPoint, directory),
  );
  if (mount) return () => nfsBytes(textOf('/proc/self/mountstats', 'latin1'), mount.mountPoint);
  return () => (textOf('/proc/meminfo').match(/^(Dirty|Writeback|NFS_Unstable):.*$/gm) ?? []).join();
}

/**
 * The line of bytes of one NFS mount; of those that were mounted at one place, the last one.
 *
 * @param mountstats the text of /proc/self/mountstats, one character a byte.
 */
export function nfsBytes(mountstats: string, mountPoint: string): string {
  const section = mountstats
    .split(/^device /m)
    .findLast(
      (text) => decodeField(/^.* mounted on (\S+) with fstype nfs/.exec(text)?.[1] ?? '') === mountPoint,
    );
  return /^\s*bytes:.*$/m.exec(section ?? '')?.[0].trim() ?? '';
}
