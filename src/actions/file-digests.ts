import { createHash, webcrypto } from 'node:crypto';
import fs from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { mostLanes } from './digest-lanes.ts';

/** A file that is larger is digested in pieces of this many bytes, several at a time. */
export const chunkBytes = 8 << 20;

/**
 * As many pieces at a time as libuv's pool has threads: four, or UV_THREADPOOL_SIZE of them (libuv, "Thread pool work
 * scheduling"; cli/launch.ts sets it). Each lane has two in memory, its own and the one that WebCrypto has copied.
 */
export const lanesNow = (): number => Math.min(mostLanes, Number(process.env.UV_THREADPOOL_SIZE) || 4);

export interface FileDigest {
  readonly bytes: number;
  /** In hexadecimal: of the file's bytes, or, where it has chunks, of the binary SHA-256 of each, one after another. */
  readonly sha256: string;
  readonly chunks?: { readonly bytes: typeof chunkBytes } | undefined;
}

/** What is below a directory, by its path in it, in a fixed order; no link is followed. */
export interface Listing {
  /** Regular files. */
  readonly files: readonly string[];
  /** Links, sockets, devices, and whatever else is no directory. */
  readonly others: readonly string[];
}

export function listBelow(directory: string): Listing {
  const files: string[] = [];
  const others: string[] = [];
  const walk = (below: string): void => {
    for (const entry of fs.readdirSync(join(directory, below), { withFileTypes: true })) {
      const name = join(below, entry.name);
      if (entry.isDirectory()) walk(name);
      else (entry.isFile() ? files : others).push(name);
    }
  };
  walk('');
  return { files: files.sort(), others: others.sort() };
}

/** The regular files below a directory, see {@link listBelow}. */
export const filesBelow = (directory: string): string[] => [...listBelow(directory).files];

/** Reads a file once for its size in bytes and its digest. */
export async function digestOf(path: string): Promise<FileDigest> {
  return (await digestsOf('', [path]))[path] as FileDigest;
}

export interface Piece {
  readonly path: string;
  readonly start: number;
  readonly length: number;
  readonly keep: (digest: Uint8Array) => void;
}

/** Digests of the first pieces of files, by the files' paths; one of no bytes is not known. */
export type KnownDigests = ReadonlyMap<string, readonly Uint8Array[]>;

/**
 * Digests of all the named files of a directory. One large file is most of an image (`pages-1.img`); its pieces let
 * all of libuv's threads work on it, for WebCrypto digests there and not in the thread that runs JavaScript (Node's
 * SubtleCrypto.digest; bench/digest.ts compares).
 *
 * @param known pieces that need not be read: CRIU's pages that were digested while it wrote them.
 * @throws the file system's own error where one cannot be read.
 */
export async function digestsOf(
  directory: string,
  names: readonly string[],
  known: KnownDigests = new Map(),
): Promise<Record<string, FileDigest>> {
  const pieces: Piece[] = [];
  const files = names.map((name) => {
    const path = join(directory, name);
    const { size } = fs.statSync(path);
    const digests: Uint8Array[] = [];
    for (let start = 0; start === 0 || start < size; start += chunkBytes) {
      const place = digests.push(known.get(path)?.[digests.length] ?? new Uint8Array()) - 1;
      if (digests[place]?.length) continue;
      const keep = (digest: Uint8Array): void => {
        digests[place] = digest;
      };
      pieces.push({ path, start, length: Math.min(chunkBytes, size - start), keep });
    }
    return { name, size, digests };
  });
  const queue = pieces.values();
  await Promise.all(Array.from({ length: Math.min(lanesNow(), pieces.length) }, () => digestPieces(queue)));
  return Object.fromEntries(files.map(({ name, size, digests }) => [name, whole(size, digests)]));
}

async function digestPieces(queue: Iterable<Piece>): Promise<void> {
  let buffer = new Uint8Array(0);
  for (const piece of queue) {
    if (buffer.length < piece.length) buffer = new Uint8Array(piece.length);
    piece.keep(await digestPiece(piece, buffer));
  }
}

/** Reads one piece into the buffer, which is at least as long, and digests it. */
export async function digestPiece({ path, start, length }: Piece, buffer: Uint8Array): Promise<Uint8Array> {
  const read = await readPiece(path, start, buffer.subarray(0, length));
  return new Uint8Array(await webcrypto.subtle.digest('SHA-256', buffer.subarray(0, read)));
}

/** Fills the buffer from a place in a file; answers with how many bytes there were. */
async function readPiece(path: string, start: number, into: Uint8Array): Promise<number> {
  const file = await open(path);
  try {
    let read = 0;
    while (read < into.length) {
      const { bytesRead } = await file.read(into, read, into.length - read, start + read);
      if (bytesRead === 0) break;
      read += bytesRead;
    }
    return read;
  } finally {
    await file.close();
  }
}

function whole(bytes: number, digests: readonly Uint8Array[]): FileDigest {
  const [only] = digests;
  if (digests.length === 1 && only) return { bytes, sha256: Buffer.from(only).toString('hex') };
  const hash = createHash('sha256');
  for (const digest of digests) hash.update(digest);
  return { bytes, sha256: hash.digest('hex'), chunks: { bytes: chunkBytes } };
}
