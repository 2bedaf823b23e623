import fs, { type Stats } from 'node:fs';
import { type FileHandle, open, realpath } from 'node:fs/promises';
import { basename, dirname, posix } from 'node:path';
import type { MountPoint } from './container-config.ts';
import { openFilesIn } from './criu-image.ts';
import { Problem } from './problem.ts';

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
  // What the volume itself is was said by who made the container: a symlink there is followed (Docker's --init, on Debian).
  const isFile = names.length === 0;
  const real = isFile ? await realpath(source) : source;
  const way = isFile ? [] : names.slice(0, -1);
  const name = isFile ? basename(real) : (names.at(-1) as string);
  const { O_DIRECTORY, O_NOFOLLOW } = fs.constants;
  let directory = await open(isFile ? dirname(real) : real, O_DIRECTORY);
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

/** O_PATH (open(2)): nothing is opened yet that could be waited for, rewound, or set off. */
export const pathOnly = 0o10000000;

/**
 * Does something with a regular file, whatever else somebody may have put in its place: a symlink, a pipe, a device.
 *
 * @param path of a file in a directory that is held open, see {@link onVolume}.
 * @returns undefined where it is no regular file.
 * @throws the file system's own error: ENOENT where there is none.
 */
async function withRegularFile<Result>(
  path: string,
  flags: number,
  work: (file: FileHandle) => Promise<Result>,
): Promise<Result | undefined> {
  const found = await open(path, pathOnly | fs.constants.O_NOFOLLOW);
  try {
    if (!(await found.stat()).isFile()) return undefined;
    if (flags === pathOnly) return await work(found);
    // The same file, by its descriptor: what the name leads to by now is another matter.
    const file = await open(`/proc/self/fd/${found.fd}`, flags);
    try {
      return await work(file);
    } finally {
      await file.close();
    }
  } finally {
    await found.close();
  }
}

/**
 * As {@link withRegularFile}, of a file that is to be read or written.
 *
 * @throws Problem `volume-file` where it is no regular file.
 */
export async function withFile<Result>(
  path: string,
  flags: number,
  work: (file: FileHandle) => Promise<Result>,
): Promise<Result> {
  const done = await withRegularFile(path, flags, async (file) => ({ result: await work(file) }));
  if (done) return done.result;
  throw new Problem(
    'volume-file',
    'a file on a volume was exchanged for something else: expected a regular file',
  );
}

/**
 * What is known of a file of a volume; undefined where it is none any more.
 *
 * @throws the file system's own error, but for a file that is not there.
 */
export async function statOnVolume(place: OnHost): Promise<Stats | undefined> {
  try {
    return await onVolume(place, (path) => withRegularFile(path, pathOnly, (file) => file.stat()));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(code)) return undefined;
    throw error;
  }
}

/** As {@link statOnVolume}: its size, in bytes. */
export const sizeOnVolume = async (place: OnHost): Promise<number | undefined> =>
  (await statOnVolume(place))?.size;
