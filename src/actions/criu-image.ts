import fs from 'node:fs';
import { join } from 'node:path';
import { Problem } from './problem.ts';
import { type Field, fieldsOf } from './protobuf.ts';

/*
 * What Tardis reads in CRIU's images. Each begins with two magic numbers of four bytes, and goes on with entries:
 * four bytes of length, then a Protocol Buffers message (criu.org, "Images").
 */
const magicBytes = 8;

/** @throws Problem `criu-image` where the last entry is torn. */
function* entriesOf(path: string): Generator<Field[]> {
  const image = fs.readFileSync(path);
  for (let at = magicBytes; at < image.length; ) {
    const length = at + 4 <= image.length ? image.readUInt32LE(at) : Number.POSITIVE_INFINITY;
    if (at + 4 + length > image.length) {
      throw new Problem('criu-image', `${path} ends in the middle of an entry: CRIU did not write it whole`);
    }
    yield fieldsOf(image.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
}

const numberIn = (fields: readonly Field[], number: number): number | undefined => {
  const varint = fields.find((field) => field.number === number)?.varint;
  return varint === undefined ? undefined : Number(varint);
};
const bytesIn = (fields: readonly Field[], number: number): Buffer | undefined =>
  fields.find((field) => field.number === number)?.bytes;

/** CRIU's TASK_STOPPED (compel, task-state.h). */
const stopped = 3;

/**
 * The pids (in the container) of the tasks that were stopped when they were dumped, as SIGSTOP stops them: field 1
 * of the `task_core_entry`, field 3 of a `core_entry` (images/core.proto). Threads have a core without it.
 */
export function tasksDumpedStopped(imageDirectory: string): number[] {
  return fs
    .readdirSync(imageDirectory)
    .flatMap((name) => /^core-(\d+)\.img$/.exec(name)?.[1] ?? [])
    .filter((pid) => {
      const [core = []] = entriesOf(join(imageDirectory, `core-${pid}.img`));
      const task = bytesIn(core, 3);
      return task !== undefined && numberIn(fieldsOf(task), 1) === stopped;
    })
    .map(Number);
}

/** A file that was unlinked while it was open, although another link keeps it. */
export interface UnlinkedFile {
  /** Its last name, in the container. */
  readonly name: string;
  /** The link that CRIU had made for the time of the dump, and looks for at the restore. */
  readonly remap: string;
}

/** images/remap-file-path.proto: a remap_file_path_entry has orig_id 1, remap_id 2, remap_type 3. */
const linkedType = 0;

/**
 * The unlinked files of an image. `files.img` holds `file_entry`s: id 2 and, for a regular file, the
 * `reg_file_entry` 3 with its id 1 and name 6 (images/fdinfo.proto, regfile.proto).
 */
export function unlinkedFilesIn(imageDirectory: string): UnlinkedFile[] {
  const remaps = join(imageDirectory, 'remap-fpath.img');
  if (!fs.existsSync(remaps)) return [];
  const names = new Map<number, string>();
  for (const entry of entriesOf(join(imageDirectory, 'files.img'))) {
    const file = bytesIn(entry, 3);
    const fields = file ? fieldsOf(file) : [];
    const name = bytesIn(fields, 6);
    const id = numberIn(fields, 1);
    if (id !== undefined && name) names.set(id, name.toString());
  }
  return [...entriesOf(remaps)].flatMap((entry) => {
    const original = names.get(numberIn(entry, 1) ?? -1);
    const remap = names.get(numberIn(entry, 2) ?? -1);
    const isLink = (numberIn(entry, 3) ?? linkedType) === linkedType;
    return isLink && original !== undefined && remap !== undefined ? [{ name: original, remap }] : [];
  });
}
