import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join, relative } from 'node:path';
import { pipeline } from 'node:stream/promises';
import fs from 'fs-extra';

export interface FileDigest {
  readonly bytes: number;
  readonly sha256: string;
}

/** The regular files below a directory, by their path in it, in a fixed order. */
export function filesBelow(directory: string): string[] {
  return fs
    .readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .sort();
}

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
