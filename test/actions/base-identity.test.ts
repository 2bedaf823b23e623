import { chmodSync, mkdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { baseIdentityOf } from '../../src/actions/base-identity.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();

/** Writes a layer: names with `/` at their end are directories, with `@` before their text symlinks. */
function layer(name: string, entries: Record<string, string>): string {
  const directory = scratch.at(name);
  mkdirSync(directory, { recursive: true });
  for (const [path, text] of Object.entries(entries)) {
    const file = scratch.at(name, path);
    if (path.endsWith('/')) mkdirSync(file, { recursive: true });
    else if (text.startsWith('@')) symlinkSync(text.slice(1), file);
    else {
      writeFileSync(file, text);
      utimesSync(file, 1000, 1000);
    }
  }
  return directory;
}

/** The identity of a root file system over these layers, the uppermost first. */
const identity = (...lowerdirs: string[]) =>
  baseIdentityOf({ kind: 'overlay', rootfs: '/r', upperdir: '/u', lowerdirs, layerOptions: [] });

const debian = { 'bin/sh': 'shell', 'etc/hosts': 'localhost', 'usr/lib/': '', 'bin/bash': '@sh' };
const app = { 'app/main': 'code' };
const initLayer = {
  ...{ '.dockerenv': '', 'dev/console': '', 'dev/pts/': '', 'dev/shm/': '', 'proc/': '', 'sys/': '' },
  ...{ 'etc/hostname': '', 'etc/hosts': '', 'etc/resolv.conf': '', 'etc/mtab': '@/proc/mounts' },
};

describe('baseIdentityOf', () => {
  it('should be the same for the same layers, wherever they are and whenever they were unpacked', async () => {
    const one = await identity(layer('host-a/7/fs', app), layer('host-a/6/fs', debian));
    expect(one).toMatch(/^[0-9a-f]{64}$/);
    const [top, bottom] = [layer('host-b/l/X/diff', app), layer('host-b/l/Y/diff', debian)];
    utimesSync(join(bottom, 'bin'), 5, 5);
    utimesSync(join(bottom, 'bin/sh'), 9999, 1000.9);
    expect(await identity(top, bottom)).toBe(one);
  });

  it.each<[what: string, change: (directory: string) => void]>([
    ['a file more', (at) => writeFileSync(join(at, 'new'), '')],
    ['a file less', (at) => rmSync(join(at, 'etc/hosts'))],
    ['a file of another size', (at) => writeFileSync(join(at, 'bin/sh'), 'shell!')],
    ['a file of another time', (at) => utimesSync(join(at, 'bin/sh'), 1000, 1001)],
    ['a file of another mode', (at) => chmodSync(join(at, 'bin/sh'), 0o4755)],
    ['a directory of another mode', (at) => chmodSync(join(at, 'usr/lib'), 0o700)],
    ['an empty directory more', (at) => mkdirSync(join(at, 'usr/lib/new'))],
    [
      'a symlink to something else',
      (at) => {
        rmSync(join(at, 'bin/bash'));
        symlinkSync('zsh', join(at, 'bin/bash'));
      },
    ],
  ])('should be another with %s', async (_, change) => {
    const bottom = layer('bottom', debian);
    const before = await identity(layer('top', app), bottom);
    change(bottom);
    expect(await identity(scratch.at('top'), bottom)).not.toBe(before);
  });

  it('should be another in another order, and with a layer more', async () => {
    const [a, b] = [layer('a', debian), layer('b', app)];
    const found = await Promise.all([identity(a, b), identity(b, a), identity(a), identity(b, a, a)]);
    expect(new Set(found).size).toBe(4);
  });

  // Docker makes it anew for each container, directly below its changes.
  it("should leave Docker's own layer out, and nothing that only looks like it", async () => {
    const below = [layer('app', app), layer('debian', debian)];
    const without = await identity(...below);
    expect(await identity(layer('init', initLayer), ...below)).toBe(without);
    utimesSync(join(scratch.at('init'), 'etc/hosts'), 7777, 7777);
    expect(await identity(scratch.at('init'), ...below)).toBe(without);
    writeFileSync(join(scratch.at('init'), 'etc/hosts'), '10.0.0.1 evil');
    expect(await identity(scratch.at('init'), ...below)).not.toBe(without);
    expect(await identity(layer('more', { ...initLayer, 'etc/passwd': '' }), ...below)).not.toBe(without);
    const lowest = layer('lowest', initLayer);
    expect(await identity(...below, lowest)).not.toBe(without);
  });

  it('should take names that are no text, and look through no symlink', async () => {
    const odd = layer('odd', { 'a\nb': '1', '-rf': '2', out: '@/etc' });
    writeFileSync(Buffer.from(`${odd}/\xff`, 'latin1'), '3');
    const before = await identity(odd);
    rmSync(Buffer.from(`${odd}/\xff`, 'latin1'));
    writeFileSync(Buffer.from(`${odd}/\xfe`, 'latin1'), '3');
    utimesSync(Buffer.from(`${odd}/\xfe`, 'latin1'), 1000, 1000);
    expect(await identity(odd)).not.toBe(before);
  });

  // Breadth first through all layers: the top one is seen although the bottom one alone has too many.
  it('should look at 20,000 entries and no more', async () => {
    const bottom = scratch.at('bottom');
    for (let n = 0; n < 19_999; n++) writeFileSync(scratch.at('bottom', 'd', `${n}`.padStart(5, '0')), '');
    const top = layer('top', { app: 'code' });
    const before = await identity(top, bottom);
    writeFileSync(join(bottom, 'd/99999'), 'beyond');
    expect(await identity(top, bottom)).toBe(before);
    writeFileSync(join(top, 'app'), 'other code');
    expect(await identity(top, bottom)).not.toBe(before);
  });

  it('should be none where there is no overlay', async () => {
    expect(await baseIdentityOf({ kind: 'plain', rootfs: '/' })).toBeUndefined();
    expect(await baseIdentityOf({ kind: 'readonly', rootfs: '/' })).toBeUndefined();
  });
});
