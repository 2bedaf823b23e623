/*
 * What the digests of an image cost, side by side: `node bench/digest.ts [GiB] [directory] [rounds]`.
 *
 * Writes a file set like an image's (one large pages-1.img, a rootfs-diff.tar of an eighth, forty small files) and
 * digests it by each of the ways below in turn, round after round, so that whatever else the machine does befalls all
 * of them alike. Prints each way's quickest round, and its CPU time in that round, which other work disturbs less.
 */
import { spawnSync } from 'node:child_process';
import { createHash, randomFillSync } from 'node:crypto';
import { createReadStream, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { Worker } from 'node:worker_threads';
import { chunkBytes, digestsOf, filesBelow } from '../src/actions/file-digests.ts';

const [gib = '2', parent = '/dev/shm', rounds = '3'] = process.argv.slice(2);
const directory = mkdtempSync(join(parent, 'tardis-bench-'));
const pages = Math.round(Number(gib) * 2 ** 30 * (8 / 9));

function fill(name: string, bytes: number): void {
  const block = randomFillSync(Buffer.alloc(1 << 20));
  const fd = openSync(join(directory, name), 'w');
  for (let left = bytes; left > 0; left -= block.length)
    writeSync(fd, block, 0, Math.min(block.length, left));
}

/** Two threads of Node's, each with every second piece. */
const worker = `
const { parentPort, workerData } = require('node:worker_threads');
const { createHash } = require('node:crypto');
const { openSync, readSync, fstatSync } = require('node:fs');
const { files, turn, turns, chunkBytes } = workerData;
const buffer = Buffer.alloc(chunkBytes);
let piece = 0;
for (const file of files) {
  const fd = openSync(file);
  const { size } = fstatSync(fd);
  for (let at = 0; at === 0 || at < size; at += chunkBytes) {
    if (piece++ % turns !== turn) continue;
    const read = readSync(fd, buffer, 0, chunkBytes, at);
    createHash('sha256').update(buffer.subarray(0, read)).digest();
  }
}
parentPort.postMessage('done');`;

const ways: Record<string, (files: string[]) => Promise<void> | void> = {
  'pieces, libuv threads (ours)': async () => {
    await digestsOf(directory, filesBelow(directory));
  },
  'whole files, streamed, one thread': async (files) => {
    for (const file of files) {
      const hash = createHash('sha256');
      await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), async (chunks) => {
        for await (const chunk of chunks as AsyncIterable<Buffer>) hash.update(chunk);
      });
      hash.digest();
    }
  },
  'pieces, two worker threads': async (files) => {
    const turns = 2;
    const data = (turn: number) => ({ files, turn, turns, chunkBytes });
    const threads = Array.from({ length: turns }, (_, turn) => {
      const thread = new Worker(worker, { eval: true, workerData: data(turn) });
      return new Promise((resolve) => thread.once('message', resolve));
    });
    await Promise.all(threads);
  },
  'whole files, two sha256sum(1)': (files) => {
    spawnSync('xargs', ['-0', '-P2', '-n1', 'sha256sum'], { input: files.join('\0') });
  },
  'whole files, two openssl(1)': (files) => {
    spawnSync('xargs', ['-0', '-P2', '-n1', 'openssl', 'dgst', '-sha256'], { input: files.join('\0') });
  },
  'read only, one cat(1)': (files) => {
    spawnSync('xargs', ['-0', 'cat'], { input: files.join('\0'), stdio: ['pipe', 'ignore', 'ignore'] });
  },
};

/** CPU seconds of this process and its children so far. */
function cpuSeconds(): number {
  const self = process.cpuUsage();
  const times = spawnSync('sh', ['-c', `cut -d" " -f16,17 /proc/${process.pid}/stat`], { encoding: 'utf8' });
  const children = times.stdout.trim().split(' ').map(Number);
  return (self.user + self.system) / 1e6 + (children[0] as number) / 100 + (children[1] as number) / 100;
}

try {
  fill('pages-1.img', pages);
  fill('rootfs-diff.tar', Math.round(pages / 8));
  for (let n = 0; n < 40; n++) fill(`core-${n}.img`, 5000);
  const files = filesBelow(directory).map((name) => join(directory, name));
  const best = new Map<string, { ms: number; cpu: number }>();
  for (let round = 0; round < Number(rounds); round++) {
    for (const [name, digest] of Object.entries(ways)) {
      const [began, cpu] = [performance.now(), cpuSeconds()];
      await digest(files);
      const now = { ms: performance.now() - began, cpu: cpuSeconds() - cpu };
      if (now.ms < (best.get(name)?.ms ?? Number.POSITIVE_INFINITY)) best.set(name, now);
    }
  }
  for (const [name, { ms, cpu }] of best) {
    console.log(`${name.padEnd(36)} ${Math.round(ms).toString().padStart(6)} ms  ${cpu.toFixed(2)} s of CPU`);
  }
} finally {
  rmSync(directory, { recursive: true });
}
