import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { listRootfsChanges } from '../../src/actions/rootfs-changes.ts';
import { locateRootfs } from '../../src/actions/rootfs-location.ts';
import { bindSocket, Lab, overlayObstacle, run, type TestOverlay } from '../support/rootfs-overlay.ts';

const obstacle = overlayObstacle();
let lab: Lab;
beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab.close());

async function list(rootfs: string) {
  const { kept, removed, sockets } = await listRootfsChanges(locateRootfs(rootfs));
  const names = (paths: Buffer[]) => paths.map((path) => path.toString('latin1')).sort();
  return { kept: names(kept), removed: names(removed), sockets: names(sockets) };
}

async function changed(lower: string, script: string, options?: string): Promise<TestOverlay> {
  const overlay = await lab.overlay('o', [await lab.make('lower', lower)], options);
  await run(overlay.rootfs, script);
  return overlay;
}

describe.skipIf(obstacle !== undefined)('listRootfsChanges', () => {
  it('should list nothing but the root directory of a fresh overlay', async () => {
    const { rootfs } = await changed('mkdir d; echo x >d/f', '');
    expect(await list(rootfs)).toEqual({ kept: ['.'], removed: [], sockets: [] });
  });

  it('should list parents before children', async () => {
    const { rootfs } = await changed(
      'mkdir -p d/e; echo x >d/e/f',
      'echo y >d/e/f; mkdir -p n/m; echo z >n/m/o',
    );
    const { kept } = await listRootfsChanges(locateRootfs(rootfs));
    const order = kept.map(String);
    for (const path of order.slice(1)) {
      const parent = path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '.';
      expect(order.indexOf(parent)).toBeLessThan(order.indexOf(path));
    }
    expect(order.sort()).toEqual(['.', 'd', 'd/e', 'd/e/f', 'n', 'n/m', 'n/m/o']);
  });

  it('should list whiteouts as removed', async () => {
    const { rootfs } = await changed('mkdir d; touch d/a d/b', 'rm d/a');
    expect(await list(rootfs)).toEqual({ kept: ['.', 'd'], removed: ['d/a'], sockets: [] });
  });

  it('should list an opaque directory as removed, and all that it holds now', async () => {
    const { rootfs } = await changed('mkdir -p d/e; touch d/a d/e/b', 'rm -r d; mkdir -p d/n; touch d/n/c');
    expect(await list(rootfs)).toEqual({ kept: ['.', 'd', 'd/n', 'd/n/c'], removed: ['d'], sockets: [] });
  });

  it('should find opaque directories whose names getfattr escapes', async () => {
    const names = `d1="$(printf 'n\\nl')"; d2='b\\134'; d3="$(printf 'x\\377=')"`;
    const again = `${names}; for d in "$d1" "$d2" "$d3"; do rmdir "$d"; mkdir "$d"; done`;
    const { rootfs } = await changed(`${names}; mkdir "$d1" "$d2" "$d3"`, again);
    expect((await list(rootfs)).removed).toEqual(['b\\134', 'n\nl', 'x\xff=']);
  });

  it('should list all of a lower directory that was renamed, for the upper layer has only its name', async () => {
    const rename = 'mv d e; chmod 600 f';
    const { rootfs } = await changed(
      'mkdir -p d/s; touch d/a d/s/b f',
      rename,
      'redirect_dir=on,metacopy=on',
    );
    const kept = ['.', 'e', 'e/a', 'e/s', 'e/s/b', 'f'];
    expect(await list(rootfs)).toEqual({ kept, removed: ['d', 'e'], sockets: [] });
  });

  it('should list a file where the image has a directory as removed too, and the reverse', async () => {
    const { rootfs } = await changed('mkdir d; touch f', 'rmdir d; touch d; rm f; mkdir f');
    expect(await list(rootfs)).toEqual({ kept: ['.', 'd', 'f'], removed: ['d', 'f'], sockets: [] });
  });

  it('should leave sockets out and name them, also in new directories', async () => {
    const script = `mkdir n; ${bindSocket('n/s')}; rm f; ${bindSocket('f')}`;
    const { rootfs } = await changed('touch f', script);
    expect(await list(rootfs)).toEqual({ kept: ['.', 'n'], removed: ['f', 'n'], sockets: ['f', 'n/s'] });
  });

  it("should honour the marks of an overlay that was mounted without the host's privileges", async () => {
    const { rootfs } = await changed(
      'mkdir d; touch d/a',
      'rm -r d; mkdir d; touch d/b; mkdir n',
      'userxattr',
    );
    expect(await list(rootfs)).toEqual({ kept: ['.', 'd', 'd/b', 'n'], removed: ['d', 'n'], sockets: [] });
  });

  it('should take a file that is marked as a whiteout for one only when the merged view hides it', async () => {
    const lower = await lab.make('lower', 'touch a b');
    // Marked before it is mounted, as a tool that builds layers would.
    const mark =
      'touch a b; setfattr -n trusted.overlay.opaque -v x .; setfattr -n trusted.overlay.whiteout -v y a';
    await lab.make('o/upper', mark);
    const { rootfs } = await lab.overlay('o', [lower]);
    const { kept, removed } = await list(rootfs);
    // Kernels differ in whether an upper layer may hold such a whiteout; the view decides.
    expect([...kept, ...removed].sort()).toEqual(['.', 'a', 'b']);
    expect(kept).toContain('b');
  });

  it('should list everything of a plain directory, and not enter other file systems', async () => {
    const rootfs = await lab.make('plain', 'mkdir -p d/e m; touch d/f');
    await lab.mount(['-t', 'tmpfs', 'tmpfs'], `${rootfs}/m`);
    await run(rootfs, 'touch m/hidden');
    expect(await list(rootfs)).toEqual({ kept: ['.', 'd', 'd/e', 'd/f', 'm'], removed: ['.'], sockets: [] });
  });

  it('should list nothing of a root file system that cannot be written to', async () => {
    const layers = await lab.make('layers', 'mkdir 1 2 m; touch 1/f');
    await lab.mount(['-t', 'overlay', '-o', 'ro,lowerdir=1:2', 'overlay'], `${layers}/m`, layers);
    expect(await list(`${layers}/m`)).toEqual({ kept: [], removed: [], sockets: [] });
  });

  it('should list 20,000 small files in well under a second', async () => {
    const many = 'seq 20 | xargs mkdir; for d in *; do (cd $d; seq 1000 | xargs touch); done';
    const { rootfs } = await changed(many, 'for d in *; do chmod 600 $d/*; done');
    const start = performance.now();
    expect((await list(rootfs)).kept).toHaveLength(20_021);
    expect(performance.now() - start).toBeLessThan(1000);
  });
});
