import { symlinkSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { locateRootfs, mountsBelow } from '../../src/actions/rootfs-location.ts';
import { Lab, overlayObstacle } from '../support/rootfs-overlay.ts';

const obstacle = overlayObstacle();
let lab: Lab;
beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab.close());

/** One line of mountinfo. */
function line(
  mountPoint: string,
  type: string,
  options: string,
  { root = '/', flags = 'rw,relatime' } = {},
): string {
  return `44 27 0:39 ${root} ${mountPoint} ${flags} shared:7 master:1 - ${type} source ${options}\n`;
}

describe('locateRootfs, by mountinfo', () => {
  it('should find the layers that containerd shortened, beside the upper layer', async () => {
    const rootfs = await lab.make('bundle/rootfs');
    const snapshots = await lab.make('snapshots', 'mkdir -p 100/fs 101/fs 102/fs 102/work');
    const options = `rw,lowerdir=101/fs:100/fs,upperdir=${snapshots}/102/fs,workdir=${snapshots}/102/work`;
    expect(locateRootfs(rootfs, line(rootfs, 'overlay', options))).toEqual({
      kind: 'overlay',
      rootfs,
      upperdir: `${snapshots}/102/fs`,
      lowerdirs: [`${snapshots}/101/fs`, `${snapshots}/100/fs`],
      layerOptions: [],
    });
  });

  it("should find Docker's short layer names in its overlay2 directory", async () => {
    const rootfs = await lab.make('merged');
    const home = await lab.make('overlay2', 'mkdir -p l x/diff a/diff; ln -s ../a/diff l/ABC');
    const options = `rw,lowerdir=l/ABC,upperdir=${home}/x/diff,workdir=${home}/x/work,index=off,metacopy=on`;
    const found = locateRootfs(rootfs, line(rootfs, 'overlay', options));
    expect(found).toMatchObject({ lowerdirs: [`${home}/l/ABC`], layerOptions: ['metacopy=on'] });
  });

  it('should read escaped characters, and one layer an option', async () => {
    const rootfs = await lab.make('odd name');
    const layers = await lab.make('layers', 'mkdir "a:b" "c,d" "u p"');
    const mangled = rootfs.replace(' ', '\\040');
    const options = `rw,lowerdir=${layers}/a\\134:b:${layers}/c\\134\\054d,upperdir=${layers}/u\\040p`;
    const found = locateRootfs(rootfs, line(mangled, 'overlay', options));
    expect(found).toMatchObject({ lowerdirs: [`${layers}/a:b`, `${layers}/c,d`], upperdir: `${layers}/u p` });
    const each = `rw,lowerdir+=${layers}/c\\054d,lowerdir+=${layers}/u\\040p,upperdir=${layers}/a:b`;
    const again = locateRootfs(rootfs, line(mangled, 'overlay', each));
    expect(again).toMatchObject({ lowerdirs: [`${layers}/c,d`, `${layers}/u p`], upperdir: `${layers}/a:b` });
  });

  it('should take the last mount on the path, and follow a symlink to it', async () => {
    const rootfs = await lab.make('rootfs', 'mkdir ../l ../u');
    symlinkSync(rootfs, `${lab.directory}/link`);
    const overlay = line(rootfs, 'overlay', `rw,lowerdir=${lab.directory}/l,upperdir=${lab.directory}/u`);
    const tmpfs = line(rootfs, 'tmpfs', 'rw');
    expect(locateRootfs(`${lab.directory}/link`, tmpfs + overlay).kind).toBe('overlay');
    expect(locateRootfs(`${lab.directory}/link`, overlay + tmpfs)).toEqual({ kind: 'plain', rootfs });
  });

  it('should call a mount read-only when nothing can be written to it', async () => {
    const rootfs = await lab.make('rootfs');
    expect(locateRootfs(rootfs, line(rootfs, 'overlay', 'ro,lowerdir=/a:/b')).kind).toBe('readonly');
    expect(locateRootfs(rootfs, line(rootfs, 'ext4', 'rw', { flags: 'ro,relatime' })).kind).toBe('readonly');
  });

  it('should treat a directory bound out of an overlay as a plain one', async () => {
    const rootfs = await lab.make('rootfs');
    expect(locateRootfs(rootfs, line(rootfs, 'overlay', 'rw,upperdir=/u', { root: '/sub' })).kind).toBe(
      'plain',
    );
  });

  it('should refuse an index of hard links, layers that are not there, and a missing root', async () => {
    const rootfs = await lab.make('rootfs');
    const indexed = line(rootfs, 'overlay', 'rw,lowerdir=/,upperdir=/,index=on');
    expect(() => locateRootfs(rootfs, indexed)).toThrow(expect.objectContaining({ code: 'rootfs-index' }));
    for (const options of [
      `rw,lowerdir=no/such,upperdir=${rootfs}`,
      `rw,lowerdir=${rootfs},upperdir=relative`,
    ]) {
      const absent = line(rootfs, 'overlay', options);
      expect(() => locateRootfs(rootfs, absent)).toThrow(expect.objectContaining({ code: 'rootfs-layers' }));
    }
    expect(() => locateRootfs(`${rootfs}/no`)).toThrow(expect.objectContaining({ code: 'rootfs-missing' }));
  });
});

describe.skipIf(obstacle !== undefined)('locateRootfs, with real mounts', () => {
  it('should find an overlay, its layers and the mounts below it', async () => {
    const lowers = [await lab.make('l 1:x', 'mkdir below'), await lab.make('l2')];
    const escaped = lowers.map((lower) => lower.replace(':', '\\:'));
    const { rootfs, upperdir } = await lab.overlay('odd\nname', escaped, 'redirect_dir=on');
    const layerOptions = ['redirect_dir=on'];
    expect(locateRootfs(rootfs)).toEqual({
      kind: 'overlay',
      rootfs,
      upperdir,
      lowerdirs: lowers,
      layerOptions,
    });
    expect(mountsBelow(rootfs)).toEqual([]);
    await lab.mount(['-t', 'tmpfs', 'tmpfs'], `${rootfs}/below`);
    expect(mountsBelow(rootfs)).toEqual([`${rootfs}/below`]);
  });

  it('should see an overlay of lower layers alone as read-only', async () => {
    const layers = await lab.make('layers', 'mkdir 1 2 m');
    await lab.mount(['-t', 'overlay', '-o', 'ro,lowerdir=1:2', 'overlay'], `${layers}/m`, layers);
    expect(locateRootfs(`${layers}/m`)).toEqual({ kind: 'readonly', rootfs: `${layers}/m` });
  });
});
