import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import fs from 'fs-extra';

export interface FileDigest {
  readonly bytes: number;
  readonly sha256: string;
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

/** Reads a file once for its size in bytes and its SHA-256 in hexadecimal. */
export async function digestOf(path: string): Promise<FileDigest> {
  const hash = createHash('sha256');
  let bytes = 0;
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), async (chunks) => {
    for await (const chunk of chunks as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      hash.update(chunk);
    }
  });
  return { bytes, sha256: hash.digest('hex') };
}

/** Digests of all the named files of a directory, a few at a time. */
export async function digestsOf(
  directory: string,
  names: readonly string[],
): Promise<Record<string, FileDigest>> {
  const digests: Record<string, FileDigest> = {};
  const queue = [...names];
  const worker = async (): Promise<void> => {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      digests[name] = await digestOf(join(directory, name));
    }
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
  return Object.fromEntries(names.map((name) => [name, digests[name] as FileDigest]));
}
