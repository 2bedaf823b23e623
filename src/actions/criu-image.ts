import fs from 'node:fs';
import { join } from 'node:path';
import { Problem, reasonOf } from './problem.ts';
import { type Field, fieldsOf, withField } from './protobuf.ts';

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

/**
 * Takes signals out of an image that were sent to its tasks and had not reached them when they were dumped.
 *
 * The queues are field 10 of a `task_core_entry` (of the process) and field 9 of a `thread_core_entry` (of a thread), which
 * are the fields 3 and 5 of a `core_entry` (images/core.proto); each holds `siginfo_t`s (images/siginfo.proto).
 *
 * @param isUnwanted is given the number of a signal, and the pid of its sender in the container: 0 for one from outside.
 * @returns how many were taken out.
 * @throws Problem `criu-image` where a core cannot be read.
 */
export function dropPendingSignals(
  imageDirectory: string,
  isUnwanted: (signal: number, sender: number) => boolean,
): number {
  let dropped = 0;
  const queue = (bytes: Buffer): Buffer =>
    withField(bytes, 1, (entry) => {
      const info = bytesIn(fieldsOf(entry), 1);
      // siginfo_t (sigaction(2)): si_signo, si_errno, si_code; of a kill(2), whose si_code is 0, then si_pid.
      const isKill = info !== undefined && info.length >= 20 && info.readInt32LE(8) === 0;
      if (!isKill || !isUnwanted(info.readInt32LE(0), info.readInt32LE(16))) return entry;
      dropped += 1;
      return undefined;
    });
  const core = (bytes: Buffer): Buffer => {
    const task = withField(bytes, 3, (inner) => withField(inner, 10, queue));
    return withField(task, 5, (inner) => withField(inner, 9, queue));
  };
  for (const name of fs.readdirSync(imageDirectory).filter((each) => /^core-\d+\.img$/.test(each))) {
    const path = join(imageDirectory, name);
    const before = dropped;
    const image = fs.readFileSync(path);
    const parts: Buffer[] = [image.subarray(0, magicBytes)];
    try {
      for (let at = magicBytes; at < image.length; ) {
        const length = image.readUInt32LE(at);
        const entry = core(image.subarray(at + 4, at + 4 + length));
        const head = Buffer.alloc(4);
        head.writeUInt32LE(entry.length);
        parts.push(head, entry);
        at += 4 + length;
      }
    } catch (error) {
      throw new Problem('criu-image', `${path} cannot be read: ${reasonOf(error)}`, { cause: error });
    }
    if (dropped > before) fs.writeFileSync(path, Buffer.concat(parts), { mode: 0o600 });
  }
  return dropped;
}

/** A file that was unlinked while it was open, although another link keeps it. */
export interface UnlinkedFile {
  /** Its last name, in the container. */
  readonly name: string;
  /** The link that CRIU had made for the time of the dump, and looks for at the restore. */
  readonly remap: string;
}

/** A regular file that a task had open, or mapped. */
export interface OpenFile {
  /** In the container, as CRIU writes it. */
  readonly name: string;
  /** Of open(2). */
  readonly flags: number;
  /** In bytes. CRIU restores it only at this size; undefined where it does not care (one that is only appended to). */
  readonly size: number | undefined;
}

interface RegularFile extends OpenFile {
  readonly id: number;
}

interface Remap {
  readonly id: number;
  readonly to: number;
  readonly type: number;
}

/** images/remap-file-path.proto: a remap_file_path_entry has orig_id 1, remap_id 2, remap_type 3. */
const linkedType = 0;

/**
 * The regular files of an image. `files.img` holds `file_entry`s: id 2 and, for a regular file, the `reg_file_entry` 3 with
 * its id 1, flags 2, name 6, and size 8 (images/fdinfo.proto, regfile.proto).
 */
function regularFilesIn(imageDirectory: string): RegularFile[] {
  const path = join(imageDirectory, 'files.img');
  if (!fs.existsSync(path)) return [];
  return [...entriesOf(path)].flatMap((entry) => {
    const file = bytesIn(entry, 3);
    const fields = file ? fieldsOf(file) : [];
    const id = numberIn(fields, 1);
    const name = bytesIn(fields, 6);
    if (id === undefined || !name) return [];
    return [{ id, name: name.toString(), flags: numberIn(fields, 2) ?? 0, size: numberIn(fields, 8) }];
  });
}

/** The files that CRIU finds by another name than theirs at the restore; none where it has written no list of them. */
function remapsIn(imageDirectory: string): Remap[] {
  const path = join(imageDirectory, 'remap-fpath.img');
  if (!fs.existsSync(path)) return [];
  return [...entriesOf(path)].map((entry) => ({
    id: numberIn(entry, 1) ?? -1,
    to: numberIn(entry, 2) ?? -1,
    type: numberIn(entry, 3) ?? linkedType,
  }));
}

/** The unlinked files of an image. */
export function unlinkedFilesIn(imageDirectory: string): UnlinkedFile[] {
  const remaps = remapsIn(imageDirectory);
  if (remaps.length === 0) return [];
  const names = new Map(regularFilesIn(imageDirectory).map(({ id, name }) => [id, name]));
  return remaps.flatMap(({ id, to, type }) => {
    const original = names.get(id);
    const remap = names.get(to);
    return type === linkedType && original !== undefined && remap !== undefined
      ? [{ name: original, remap }]
      : [];
  });
}

/** The regular files of an image that are looked for by their own names at the restore. */
export function openFilesIn(imageDirectory: string): OpenFile[] {
  const remaps = remapsIn(imageDirectory);
  const others = new Set(remaps.flatMap(({ id, to }) => [id, to]));
  return regularFilesIn(imageDirectory)
    .filter(({ id }) => !others.has(id))
    .map(({ name, flags, size }) => ({ name, flags, size }));
}
