import fs from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type ContainerConfig, onGrownFilesOf } from './container-config.ts';
import type { Host } from './host.ts';
import { Problem, reasonOf } from './problem.ts';
import { textOf } from './read-or-nothing.ts';
import {
  type OnHost,
  onHost,
  onVolume,
  sizeOnVolume,
  type VolumeFile,
  volumeOf,
  withFile,
} from './volume-files.ts';

/** A file that is larger than at the dump, and where it is on the host. */
interface Grown extends VolumeFile {
  readonly place: OnHost;
  /** In bytes, now. */
  readonly size: number;
}

/** What is needed of a container's configuration. */
type Settings = Pick<ContainerConfig, 'mounts' | 'env'>;

/**
 * Makes sure that CRIU will find the files on volumes that a job had open as it needs them. Files that have grown since the dump
 * will be cut back ({@link cutGrownFiles}), if the container asks for that.
 *
 * @throws Problem `image-volume-file` for one that is missing or has become smaller, `image-file-grown` for one that has
 * grown and stays so. Nothing has been touched.
 */
export async function refuseChangedFiles(files: readonly VolumeFile[], settings: Settings): Promise<void> {
  const grown: Grown[] = [];
  for (const file of files) {
    const place = onHost(file.path, settings.mounts);
    const size = place && (await sizeOnVolume(place));
    if (!place || size === undefined || (size < file.bytes && !file.appended)) {
      throw new Problem(
        'image-volume-file',
        `the job had ${file.path} open, on a volume, with ${file.bytes} bytes; found ` +
          `${size === undefined ? 'no such file' : `${size} bytes`}; mount the volume that it had, or take an image of another time`,
      );
    }
    // Of any other size CRIU takes one that is only appended to.
    if (size > file.bytes && !file.appended) grown.push({ ...file, place, size });
  }
  if (onGrownFilesOf(settings.env) === 'refuse') return refuseGrown(grown);
  const foreign = grown.find((file) => !isOwn(file, settings));
  if (!foreign) return;
  throw new Problem(
    'image-file-grown',
    `${foreign.path} has ${foreign.size} bytes, and had ${foreign.bytes} when the job was dumped, which CRIU wants; it is not cut ` +
      'back, for it is not the job that has written there',
  );
}

/** Whether the job has written a file: it had it open for that, on a volume where it may. */
const isOwn = ({ path, written }: VolumeFile, { mounts }: Settings): boolean =>
  written && volumeOf(path, mounts)?.readOnly === false;

function refuseGrown(grown: readonly Grown[]): void {
  const [first] = grown;
  if (!first) return;
  const more = grown.length > 1 ? ` (and ${grown.length - 1} more)` : '';
  const found = `${first.path}${more} on a volume has ${first.size} bytes, and had ${first.bytes} when the job was dumped`;
  throw new Problem(
    'image-file-grown',
    `${found}: CRIU restores no file at another size; set TARDIS_ON_GROWN_FILES=truncate to have it cut back to what the ` +
      'job had written by then (what is cut is kept beside it), or cut it back by hand',
  );
}

/** What was cut from a file, and where it is kept; written down before anything is cut. */
interface Cut {
  readonly place: OnHost;
  /** The size that it had. */
  readonly size: number;
  /** The size that it was cut to. */
  readonly bytes: number;
  /** The name of the file beside it that keeps what was cut. */
  readonly kept: string;
}

const listIn = (directory: string): string => join(directory, 'cut-files.jsonl');

/**
 * Cuts files on volumes that the job had written to back to their size at the dump, those too that CRIU would take; what is cut
 * stays beside each as `<name>.tardis-cut.<generation>`, with its owner and mode.
 *
 * @param rollback where is noted what {@link putCutBack} needs.
 * @throws Problem `grown-files` for a file that is being exchanged; the file system's own error.
 */
export async function cutGrownFiles(
  host: Pick<Host, 'log'>,
  files: readonly VolumeFile[],
  settings: Settings,
  generation: number,
  rollback: string,
): Promise<void> {
  for (const { path, bytes } of files.filter((file) => isOwn(file, settings))) {
    const place = onHost(path, settings.mounts);
    const size = place && (await sizeOnVolume(place));
    if (!place || size === undefined || size <= bytes) continue;
    await onVolume(place, async (file) => {
      const kept = freeName(file, generation);
      const cut: Cut = { place, size, bytes, kept: basename(kept) };
      fs.appendFileSync(listIn(rollback), `${JSON.stringify(cut)}\n`, { mode: 0o600 });
      await cutBack(file, kept, bytes);
      host.log.warn(
        { path, size, bytes },
        `${path} was cut from ${size} to the ${bytes} bytes that it had when the job was dumped; what was cut is in ${cut.kept} beside it`,
      );
    });
  }
}

/** The path of what keeps what is cut; with a number at its end where an earlier restore has left one. */
function freeName(file: string, generation: number): string {
  const name = basename(file);
  for (let n = 1; ; n++) {
    const suffix = `.tardis-cut.${generation}${n === 1 ? '' : `.${n}`}`;
    const kept = join(dirname(file), shortened(name, mostNameBytes - suffix.length) + suffix);
    if (!fs.lstatSync(kept, { throwIfNoEntry: false })) return kept;
  }
}

/** NAME_MAX (pathname(7)). */
const mostNameBytes = 255;

/** As much of a name as takes so many bytes. */
function shortened(name: string, bytes: number): string {
  let short = name;
  while (Buffer.byteLength(short) > bytes) short = [...short].slice(0, -1).join('');
  return short;
}

async function cutBack(file: string, kept: string, bytes: number): Promise<void> {
  const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY, O_RDWR } = fs.constants;
  await withFile(file, O_RDWR, async (source) => {
    const { uid, gid, mode } = await source.stat();
    const copy = await open(kept, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      await copyFrom(source, bytes, copy, 0);
      await copy.chown(uid, gid);
      await copy.chmod(mode & 0o777);
      await copy.sync();
      // What somebody has added since it was read to its end.
      const { size } = await copy.stat();
      await copyFrom(source, bytes + size, copy, size);
    } finally {
      await copy.close();
    }
    await source.truncate(bytes);
    await source.sync();
  });
}

/** Whether anything was cut that {@link putCutBack} would put back. */
export const hasCutFiles = (rollback: string): boolean => fs.existsSync(listIn(rollback));

/**
 * Puts back what {@link cutGrownFiles} has cut; harmless where it was done, or nothing was cut.
 *
 * A file that somebody has written to since is left as it is, and what was cut from it stays beside it, with a warning.
 */
export async function putCutBack({ log }: Pick<Host, 'log'>, rollback: string): Promise<void> {
  const lines = textOf(listIn(rollback)).split('\n').filter(Boolean);
  for (const line of lines) {
    try {
      const cut = JSON.parse(line) as Cut;
      await onVolume(cut.place, (file) => putBack(file, join(dirname(file), cut.kept), cut));
    } catch (error) {
      log.warn(
        { cut: line, reason: reasonOf(error) },
        `a file that was cut back stays so: ${reasonOf(error)}`,
      );
    }
  }
}

async function putBack(file: string, kept: string, { size, bytes }: Cut): Promise<void> {
  const { O_APPEND, O_RDONLY, O_RDWR } = fs.constants;
  // The wrapper has died before it was made, or after it was put back.
  if (!fs.lstatSync(kept, { throwIfNoEntry: false })) return;
  await withFile(kept, O_RDONLY, async (source) => {
    // It was not whole yet: nothing was cut.
    if ((await source.stat()).size < size - bytes) return;
    // Appended to, so that nothing is written over that somebody adds meanwhile.
    await withFile(file, O_RDWR | O_APPEND, async (target) => {
      const now = (await target.stat()).size;
      const back = Math.min(now, size) - bytes;
      // What is there again already, or was not cut yet, is what was kept.
      if (back < 0 || !(await isSame(source, 0, target, bytes, back))) {
        throw new Problem('grown-files', `it has ${now} bytes, expected the ${bytes} that it was cut to`);
      }
      await copyFrom(source, back, target, bytes + back);
      await target.sync();
    });
  });
  await fs.promises.unlink(kept);
}

/** Whether so many bytes are the same in two files. */
async function isSame(
  one: FileHandle,
  oneFrom: number,
  other: FileHandle,
  otherFrom: number,
  bytes: number,
): Promise<boolean> {
  const [first, second] = [Buffer.alloc(chunkBytes), Buffer.alloc(chunkBytes)];
  for (let at = 0; at < bytes; at += chunkBytes) {
    const length = Math.min(chunkBytes, bytes - at);
    await one.read(first, 0, length, oneFrom + at);
    await other.read(second, 0, length, otherFrom + at);
    if (!first.subarray(0, length).equals(second.subarray(0, length))) return false;
  }
  return true;
}

const chunkBytes = 1 << 20;

/** Copies all that a file has from an offset on. */
async function copyFrom(source: FileHandle, from: number, target: FileHandle, to: number): Promise<void> {
  const buffer = Buffer.alloc(chunkBytes);
  for (let at = 0; ; ) {
    const { bytesRead } = await source.read(buffer, 0, buffer.length, from + at);
    if (bytesRead === 0) return;
    for (let done = 0; done < bytesRead; ) {
      const { bytesWritten } = await target.write(buffer, done, bytesRead - done, to + at + done);
      done += bytesWritten;
    }
    at += bytesRead;
  }
}
