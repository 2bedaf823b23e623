import { randomFillSync } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Compressed, compressDump, expandDump } from '../../src/actions/compression.ts';
import { chunkBytes } from '../../src/actions/file-digests.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();
let made = 0;
function directory(): string {
  const path = scratch.at(`directory-${made++}`);
  mkdirSync(path);
  return path;
}
const read = (path: string) =>
  Object.fromEntries(readdirSync(path).map((name) => [name, readFileSync(`${path}/${name}`)]));

function dumpOf(files: Record<string, Uint8Array>): string {
  const path = directory();
  for (const [name, bytes] of Object.entries(files)) writeFileSync(`${path}/${name}`, bytes);
  return path;
}

/** Bytes of which some can be compressed and some cannot. */
function memory(length: number): Uint8Array {
  const bytes = new Uint8Array(length).fill(7);
  randomFillSync(bytes, 0, length >> 1);
  return bytes;
}

async function compressed(files: Record<string, Uint8Array>): Promise<[string, Record<string, Compressed>]> {
  const image = directory();
  return [image, await compressDump(dumpOf(files), image, 1)];
}

describe('compressDump and expandDump', () => {
  it('should give every file back as it was dumped, whatever its length', async () => {
    const edges = [0, 1, 4096, chunkBytes - 1, chunkBytes, chunkBytes + 1, 5 * chunkBytes + 4096];
    const lengths = fc.oneof(fc.constantFrom(...edges), fc.nat(3 * chunkBytes));
    await fc.assert(
      fc.asyncProperty(lengths, fc.uint8Array({ maxLength: 100 }), async (length, small) => {
        const files = { 'pages-1.img': memory(length), 'pages-12.img': small, 'core-1.img': small };
        const [image, described] = await compressed(files);
        const into = directory();
        await expandDump(image, into, described);
        expect(Object.keys(read(into)).sort()).toEqual(Object.keys(files).sort());
        for (const [name, bytes] of Object.entries(files))
          expect(Buffer.compare(readFileSync(`${into}/${name}`), bytes), name).toBe(0);
      }),
      { numRuns: 15 },
    );
  });

  it('should compress the memory, and nothing else', async () => {
    const [image] = await compressed({
      'pages-1.img': new Uint8Array(100_000),
      'pagemap-1.img': new Uint8Array(1000),
      'inventory.img': new Uint8Array(1000),
    });
    expect(readdirSync(image).sort()).toEqual(['inventory.img', 'pagemap-1.img', 'pages-1.img.zst']);
    expect(statSync(`${image}/pages-1.img.zst`).size).toBeLessThan(1000);
    expect(statSync(`${image}/pagemap-1.img`).size).toBe(1000);
  });

  type Damage = (path: string, described: Compressed) => Partial<Compressed> | undefined;
  const damages: Record<string, Damage> = {
    'is cut short': (path) => void truncateSync(path, statSync(path).size - 1),
    'is not zstd': (path) => void writeFileSync(path, Buffer.alloc(statSync(path).size, 1)),
    'has one bit flipped': (path) => {
      const bytes = readFileSync(path);
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
      writeFileSync(path, bytes);
    },
    'has fewer frames than it is said to': (_, { frames }) => ({ frames: frames.slice(1) }),
    'holds less than it is said to': (_, { bytes }) => ({ bytes: bytes + 1 }),
    'holds more than it is said to': (_, { bytes }) => ({ bytes: bytes - 1 }),
  };
  it.each(Object.entries(damages))('should refuse a file that %s, and name it', async (_, damage) => {
    const [image, described] = await compressed({ 'pages-1.img': memory(chunkBytes + 10) });
    const whole = described['pages-1.img'] as Compressed;
    const said = { 'pages-1.img': { ...whole, ...damage(`${image}/pages-1.img.zst`, whole) } };
    const { code, message } = await problemOf(() => expandDump(image, directory(), said));
    expect(code).toBe('image-compression');
    expect(message).toContain(`${image}/pages-1.img.zst`);
  });
});
