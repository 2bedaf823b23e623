import fs from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { copyFiles } from './copy-files.ts';
import { chunkBytes, lanesNow } from './file-digests.ts';
import type { Manifest } from './manifest.ts';
import { Problem, reasonOf } from './problem.ts';

/** What a compressed image calls the file that holds another one's bytes. */
export const compressedSuffix = '.zst';

/** The one kind of CRIU's files that is large: the job's memory, as it lay there (criu.org, "Memory dumps"). */
const isPages = (name: string): boolean => /^pages-\d+\.img$/.test(name);

/** What became of a file: its bytes, and the lengths of the zstd frames that hold them, 8 MiB each, in their order. */
export type Compressed = NonNullable<Manifest['compressed']>[string];

/** Node's zlib comes back from its thread for each of these, 16 KiB by default: a piece is to take one go. */
const chunkSize = chunkBytes + (64 << 10);

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

/**
 * Fills an image's directory from a dump: the memory pages compressed, all else as it is.
 *
 * A compressed file is one zstd frame after another, each of 8 MiB of memory, so that all of libuv's threads work on it
 * and `zstd -d` reads it too. Each frame ends with a checksum of its own.
 *
 * @param level of zstd: 1 (fastest) to 19.
 * @returns what was compressed, by the names that the files had.
 * @throws the file system's own error.
 */
export async function compressDump(
  dump: string,
  into: string,
  level: number,
): Promise<Record<string, Compressed>> {
  const made: Record<string, Compressed> = {};
  fs.mkdirSync(into, { recursive: true, mode: 0o700 });
  const names = fs.readdirSync(dump).sort();
  for (const name of names.filter(isPages))
    made[name] = await compressFile(join(dump, name), join(into, name + compressedSuffix), level);
  const others = names.filter((name) => !isPages(name));
  await copyFiles(dump, others, into, 'into the image');
  return made;
}

async function compressFile(from: string, to: string, level: number): Promise<Compressed> {
  const params = { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: 1 };
  return withFiles(from, to, async (source, target) => {
    const { size } = await source.stat();
    const frames: number[] = [];
    for (let start = 0; start < size; start += lanesNow() * chunkBytes) {
      const pieces = await inLanes(start, size, async (place, length) =>
        compress(await readAll(source, place, length), { params, chunkSize }),
      );
      for (const piece of pieces) {
        await writeAll(target, piece);
        frames.push(piece.length);
      }
    }
    return { bytes: size, frames };
  });
}

/**
 * Fills a directory from an image's CRIU files, with every file as it was dumped.
 *
 * @param compressed what {@link compressDump} had to say of it.
 * @throws Problem `image-compression` where a file is not what that says; the file system's own error.
 */
export async function expandDump(
  image: string,
  into: string,
  compressed: Readonly<Record<string, Compressed>>,
): Promise<void> {
  const held = new Set(Object.keys(compressed).map((name) => name + compressedSuffix));
  const others = fs.readdirSync(image).filter((name) => !held.has(name));
  await copyFiles(image, others, into, 'out of the image');
  for (const [name, content] of Object.entries(compressed))
    await expandFile(join(image, name + compressedSuffix), join(into, name), content);
}

async function expandFile(from: string, to: string, { bytes, frames }: Compressed): Promise<void> {
  const ends: number[] = [];
  for (const length of frames) ends.push((ends.at(-1) ?? 0) + length);
  const { size } = fs.statSync(from);
  if (size !== (ends.at(-1) ?? 0) || frames.length !== Math.ceil(bytes / chunkBytes))
    throw unlike(from, `${size} bytes in ${frames.length} frames are not what the manifest says`);
  await withFiles(from, to, async (source, target) => {
    const expand = async (place: number, length: number): Promise<void> => {
      const i = place / chunkBytes;
      const [end = 0, compressed = 0] = [ends[i], frames[i]];
      const frame = await readAll(source, end - compressed, compressed);
      const piece = await decompress(frame, { maxOutputLength: length, chunkSize }).catch(
        (cause: unknown) => {
          throw unlike(from, `frame ${i} is damaged (${reasonOf(cause)})`, cause);
        },
      );
      if (piece.length !== length)
        throw unlike(from, `frame ${i} holds ${piece.length} bytes, expected ${length}`);
      await writeAll(target, piece, place);
    };
    for (let start = 0; start < bytes; start += lanesNow() * chunkBytes) await inLanes(start, bytes, expand);
  });
}

/** Opens one file to read and makes another anew, and closes them again. */
async function withFiles<Result>(
  from: string,
  to: string,
  work: (source: FileHandle, target: FileHandle) => Promise<Result>,
): Promise<Result> {
  const source = await open(from);
  try {
    const target = await open(to, 'w', 0o600);
    return await work(source, target).finally(() => target.close());
  } finally {
    await source.close();
  }
}

const unlike = (path: string, found: string, cause?: unknown): Problem =>
  new Problem(
    'image-compression',
    `${path} cannot be expanded: ${found}; take an older generation, or a copy of this one`,
    {
      cause,
    },
  );

/** Does one thing to as many pieces from a place on as there are lanes, all at once. */
const inLanes = <Result>(
  start: number,
  end: number,
  work: (place: number, length: number) => Promise<Result>,
): Promise<Result[]> => {
  const places = Array.from({ length: lanesNow() }, (_, i) => start + i * chunkBytes).filter(
    (place) => place < end,
  );
  return Promise.all(places.map((place) => work(place, Math.min(chunkBytes, end - place))));
};

async function readAll(file: FileHandle, place: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length);
  let read = 0;
  while (read < length) {
    const { bytesRead } = await file.read(buffer, read, length - read, place + read);
    if (bytesRead === 0) break;
    read += bytesRead;
  }
  return buffer.subarray(0, read);
}

async function writeAll(file: FileHandle, bytes: Uint8Array, place?: number): Promise<void> {
  let written = 0;
  while (written < bytes.length) {
    const at = place === undefined ? null : place + written;
    written += (await file.write(bytes, written, bytes.length - written, at)).bytesWritten;
  }
}
