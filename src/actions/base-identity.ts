import { createHash } from 'node:crypto';
import { lstatSync, readlinkSync, type Stats } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import type { RootfsLocation } from './rootfs-location.ts';
import { type BytePath, bufferOf, bytesOf, join, readDirectory } from './rootfs-paths.ts';

/** How many entries of all layers together are looked at: a bound for time, not for truth. */
const mostEntries = 20_000;

/** How many of them before other work gets its turn. */
const batch = 200;

/**
 * What Docker puts into the layer of its own that lies directly below a container's changes: empty files and
 * directories to mount over (moby daemon/initlayer/setup_unix.go). They are made anew for each container.
 */
const dockerInit: ReadonlySet<string> = new Set(
  ['.dockerenv', 'dev', 'dev/console', 'dev/pts', 'dev/shm', 'etc', 'etc/hostname', 'etc/hosts', 'etc/mtab']
    .concat(['etc/resolv.conf', 'proc', 'sys'])
    .map(bytesOf),
);

/**
 * The identity of what an overlay's changes are changes to: the SHA-256 in hexadecimal of its lower layers' entries,
 * from the bottom up; undefined for a root file system that is no overlay.
 *
 * Of each entry: its layer, path, type, and mode, a file's size and modification time in seconds, a symlink's target.
 * Not where the layers are, and not the times of directories: those change whenever an engine unpacks an image. The
 * walk goes breadth first through all layers at once, and ends after 20,000 entries: those take 0.2 s.
 */
export async function baseIdentityOf(location: RootfsLocation): Promise<string | undefined> {
  if (location.kind !== 'overlay') return undefined;
  const layers = location.lowerdirs.map(bytesOf);
  while (layers[0] !== undefined && isDockerInit(layers[0])) layers.shift();
  const hash = createHash('sha256');
  let count = 0;
  const queue = layers.reverse().map((layer, place) => ({ layer, place, path: '.' }));
  for (const { layer, place, path: directory } of queue) {
    const names = readDirectory(`${layer}/${directory}`).map(({ name }) => name);
    for (const name of names.sort()) {
      if (count === mostEntries) return hash.digest('hex');
      count += 1;
      if (count % batch === 0) await setImmediate();
      const path = join(directory, name);
      const absolute = `${layer}/${path}`;
      const stats = lstatSync(bufferOf(absolute));
      hash.update(`${place}\0${path}\0${describe(absolute, stats)}\0`, 'latin1');
      if (stats.isDirectory()) queue.push({ layer, place, path });
    }
  }
  return hash.digest('hex');
}

function describe(path: BytePath, stats: Stats): string {
  const words = [stats.mode.toString(8)];
  if (stats.isFile()) words.push(String(stats.size), String(Math.floor(stats.mtimeMs / 1000)));
  if (stats.isSymbolicLink()) words.push(readlinkSync(bufferOf(path), 'latin1'));
  return words.join(' ');
}

function isDockerInit(layer: BytePath): boolean {
  const holdsNoOther = (directory: BytePath): boolean =>
    readDirectory(`${layer}/${directory}`).every(({ name }) => {
      const path = join(directory, name);
      if (!dockerInit.has(path)) return false;
      const stats = lstatSync(bufferOf(`${layer}/${path}`));
      if (stats.isDirectory()) return holdsNoOther(path);
      return stats.isSymbolicLink() || (stats.isFile() && stats.size === 0);
    });
  return holdsNoOther('.');
}
