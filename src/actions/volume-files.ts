import fs from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, dirname, posix } from 'node:path';
import type { MountPoint } from './container-config.ts';
import { openFilesIn } from './criu-image.ts';

/** A file on a volume that a job had open, or mapped, when it was dumped. */
export interface VolumeFile {
  /** In the container, absolute. */
  readonly path: string;
  /** Its size at the dump. */
  readonly bytes: number;
  /** Whether the job had it open for writing. */
  readonly written: boolean;
  /**
   * Whether it was only appended to: CRIU restores every other file at this size only ("bad size"; criu/files-reg.c,
   * should_check_size).
   */
  readonly appended: boolean;
}

/**
 * The files on volumes that an image needs, by path. Everything else that its tasks have open is in the image, or is the
 * container image's.
 *
 * @param dump the directory of CRIU's images, of a job that is frozen still.
 */
export async function volumeFilesOf(dump: string, mounts: readonly MountPoint[]): Promise<VolumeFile[]> {
  const sizes = new Map<string, number | undefined>();
  const written = new Set<string>();
  for (const { name, flags, size } of openFilesIn(dump)) {
    const path = posix.join('/', name);
    // Bytes that are no UTF-8 would not survive JSON: CRIU says what it misses then.
    if (path.includes('\ufffd') || volumeOf(path, mounts) === undefined) continue;
    if ((flags & accessMode) !== fs.constants.O_RDONLY) written.add(path);
    sizes.set(path, sizes.get(path) ?? size);
  }
  const files: VolumeFile[] = [];
  for (const [path, compared] of [...sizes].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const place = onHost(path, mounts);
    const bytes = compared ?? (place && (await sizeOnVolume(place)));
    if (bytes === undefined) continue;
    files.push({ path, bytes, written: written.has(path), appended: compared === undefined });
  }
  return files;
}

/** O_ACCMODE (open(2)). */
const accessMode = 3;

/** The volume that a path in the container is on; undefined where that is the root file system or another mount. */
export function volumeOf(path: string, mounts: readonly MountPoint[]): MountPoint | undefined {
  let found: MountPoint | undefined;
  for (const mount of mounts) {
    const isOn = path === mount.destination || path.startsWith(posix.join(mount.destination, '/'));
    // Of two on the same path the later one hides the other.
    if (isOn && mount.destination.length >= (found?.destination.length ?? 0)) found = mount;
  }
  return found?.source === undefined ? undefined : found;
}

/** Where a file of a volume is on the host. */
export interface OnHost {
  /** Of the volume: a directory, or the file itself. */
  readonly source: string;
  /** The names from there to the file; none where the source is the file. */
  readonly names: readonly string[];
}

/** @returns undefined where the container has no such volume. */
export function onHost(path: string, mounts: readonly MountPoint[]): OnHost | undefined {
  const volume = volumeOf(path, mounts);
  if (volume?.source === undefined) return undefined;
  const names = posix
    .relative(volume.destination, path)
    .split('/')
    .filter((name) => name !== '');
  return { source: volume.source, names };
}

/**
 * Does something with a file of a volume, or beside it, and follows no symlink on the way: whoever can write to the volume could
 * lead it to any file of the host.
 *
 * @param work is given the path of the file through a descriptor of its directory, good for as long as it works.
 * @throws the file system's own error: ELOOP or ENOTDIR for a symlink.
 */
export async function onVolume<Result>(
  { source, names }: OnHost,
  work: (path: string) => Promise<Result>,
): Promise<Result> {
  const isFile = names.length === 0;
  const way = isFile ? [] : names.slice(0, -1);
  const name = isFile ? basename(source) : (names.at(-1) as string);
  const { O_DIRECTORY, O_NOFOLLOW } = fs.constants;
  let directory = await open(isFile ? dirname(source) : source, O_DIRECTORY);
  try {
    for (const step of way) {
      const next = await open(`/proc/self/fd/${directory.fd}/${step}`, O_DIRECTORY | O_NOFOLLOW);
      await directory.close();
      directory = next;
    }
    return await work(`/proc/self/fd/${directory.fd}/${name}`);
  } finally {
    await directory.close();
  }
}

/** Flags with which a file of a volume is opened: a pipe that was put there is not waited for. */
export const safely = fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/**
 * The size of a file of a volume; undefined where it is none any more.
 *
 * @throws the file system's own error, but for a file that is not there.
 */
export async function sizeOnVolume(place: OnHost): Promise<number | undefined> {
  try {
    return await onVolume(place, async (path) => {
      const file = await open(path, fs.constants.O_RDONLY | safely);
      try {
        const stats = await file.stat();
        return stats.isFile() ? stats.size : undefined;
      } finally {
        await file.close();
      }
    });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes(code)) return undefined;
    throw error;
  }
}
