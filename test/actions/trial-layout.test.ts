import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { rootfsOverlayOf, standInsFor } from '../../src/actions/trial-layout.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const trial = () => scratch.at('trial');
const layers = { layerOptions: [] };

describe('standInsFor', () => {
  it('shows a directory, and files in it, by one overlay', () => {
    const volume = scratch.at('volume');
    mkdirSync(volume);
    writeFileSync(join(volume, 'file'), '');
    symlinkSync('volume', scratch.at('link'));
    const [file, link] = [join(volume, 'file'), scratch.at('link')];
    const { overlays, standInFor } = standInsFor([file, volume, link], '/bundle', trial());
    const home = join(trial(), 'volumes/0');
    expect(overlays).toEqual([{ home, target: join(home, 'shown'), lowerdirs: [volume], ...layers }]);
    expect([file, volume, link].map(standInFor)).toEqual([
      join(home, 'shown/file'),
      join(home, 'shown'),
      join(home, 'shown'),
    ]);
  });

  it('gives each directory an overlay, and takes relative sources from the bundle', () => {
    for (const name of ['a', 'b']) mkdirSync(scratch.at('bundle', name), { recursive: true });
    const { overlays, standInFor } = standInsFor(['a', 'b'], scratch.at('bundle'), trial());
    expect(overlays.map(({ lowerdirs }) => lowerdirs)).toEqual([
      [scratch.at('bundle/a')],
      [scratch.at('bundle/b')],
    ]);
    expect(standInFor('b')).toBe(join(trial(), 'volumes/1/shown'));
  });

  it('shows as it is what has no files to protect, is none, or is not there', async () => {
    const socket = scratch.at('socket');
    const server = createServer();
    onTestFinished(() => void server.close());
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    const sources = [socket, '/dev/null', '/proc', '/proc/self/mountinfo', scratch.at('missing')];
    const { overlays, standInFor } = standInsFor(sources, '/bundle', trial());
    expect(overlays).toEqual([]);
    expect(sources.map(standInFor)).toEqual(sources);
  });
});

describe('rootfsOverlayOf', () => {
  it('has none for a plain directory, of which the image has all', () => {
    mkdirSync(scratch.at('rootfs'));
    expect(rootfsOverlayOf(scratch.at('rootfs'), trial())).toBeUndefined();
  });

  it('lays one over what cannot be written to', () => {
    const rootfs = scratch.tmpfs('rootfs', 'ro,size=64k');
    expect(rootfsOverlayOf(rootfs, trial())).toEqual({
      home: join(trial(), 'layers'),
      target: join(trial(), 'rootfs'),
      lowerdirs: [rootfs],
      ...layers,
    });
  });
});
