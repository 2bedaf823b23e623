import fs from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { mostLanes } from './digest-lanes.ts';
import { chunkBytes, digestPiece, type KnownDigests, type Piece } from './file-digests.ts';

/** What CRIU only ever appends to (criu/page-xfer.c): below its size at any moment such a file is what it will be. */
const appendedOnly = /^pages-\d+\.img$/;

/** Between two looks of all lanes together: a CRIU that hangs must not be hidden by the CPU time that looking takes. */
const everyMs = 10;

/** Digests of files that are being written. */
export interface EarlyDigests {
  readonly soFar: KnownDigests;
  /** Ends the work, and gives the digests of the pieces that were whole by then. */
  finish(): Promise<KnownDigests>;
}

/**
 * Digests a dump's memory pages while CRIU writes them, piece by piece, out of the page cache.
 *
 * CRIU has one thread: a core is left to it, and on a host with one core nothing is done here.
 *
 * @param directory of CRIU's image files; it may fill later.
 */
export function beginDigests(directory: string, cores = availableParallelism()): EarlyDigests {
  const known = new Map<string, Uint8Array[]>();
  let isWritten = false;
  const count = Math.min(mostLanes, cores - 1);
  const lane = async (): Promise<void> => {
    while (!isWritten) {
      const piece = nextPiece(directory, known);
      if (!piece) await delay(everyMs * count);
      else piece.keep(await digestPiece(piece, new Uint8Array(piece.length)));
    }
  };
  // A piece that cannot be read is read again with the rest of the image, where its error is told.
  const lanes = Array.from({ length: count }, () => lane().catch(() => {}));
  return {
    soFar: known,
    async finish() {
      isWritten = true;
      await Promise.all(lanes);
      return known;
    },
  };
}

/** A piece that is whole and that no lane has taken yet. */
function nextPiece(directory: string, known: Map<string, Uint8Array[]>): Piece | undefined {
  for (const name of fs.readdirSync(directory).filter((each) => appendedOnly.test(each))) {
    const path = join(directory, name);
    const digests = known.get(path) ?? [];
    known.set(path, digests);
    const start = digests.length * chunkBytes;
    if (fs.statSync(path).size < start + chunkBytes) continue;
    const place = digests.push(new Uint8Array()) - 1;
    return {
      path,
      start,
      length: chunkBytes,
      keep: (digest) => {
        digests[place] = digest;
      },
    };
  }
  return undefined;
}
