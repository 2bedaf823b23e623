import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { resetRootfs } from '../../src/actions/rootfs-reset.ts';
import { saveRootfs } from '../../src/actions/rootfs-save.ts';
import { busy, changes, imageLayers, plainTree } from '../support/rootfs-cases.ts';
import { rootfsDigest, rootfsListing } from '../support/rootfs-digest.ts';
import { Lab, overlayObstacle, run } from '../support/rootfs-overlay.ts';

const obstacle = overlayObstacle();
let lab: Lab;
beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab.close());

const imageLab = new Lab();
const image: string[] = [];
beforeAll(async () => {
  if (obstacle !== undefined) return;
  for (const [number, script] of imageLayers.entries()) {
    image.unshift(await imageLab.make(`layer-${number}`, script));
  }
});
afterAll(() => imageLab.close());

/** With these options an upper layer may hold names without content. */
const named = Object.entries(changes).filter(([title]) =>
  /renamed|directories|modified|hard-linked/.test(title),
);

describe.skipIf(obstacle !== undefined).each([
  { mounted: 'as engines mount them', options: '', cases: Object.entries(changes) },
  { mounted: 'with redirect_dir and metacopy', options: 'redirect_dir=on,metacopy=on', cases: named },
])('resetRootfs, overlays $mounted', ({ options, cases }) => {
  it.each(cases)(
    'should carry %s to a fresh overlay, to one with changes of its own, and roll back',
    async (_, script) => {
      const old = await lab.overlay('old', image, options);
      await run(old.rootfs, script);
      const saved = await lab.make('saved');
      await saveRootfs(old.rootfs, saved);
      const wanted = await rootfsListing(old.rootfs);

      const fresh = await lab.overlay('fresh', image, options);
      const before = await rootfsDigest(fresh.rootfs);
      const beginning = await lab.make('beginning');
      await saveRootfs(fresh.rootfs, beginning);
      await resetRootfs(fresh.rootfs, saved);
      expect(await rootfsListing(fresh.rootfs)).toEqual(wanted);
      await resetRootfs(fresh.rootfs, saved);
      expect(await rootfsListing(fresh.rootfs)).toEqual(wanted);
      await resetRootfs(fresh.rootfs, beginning);
      expect(await rootfsDigest(fresh.rootfs)).toBe(before);

      const other = await lab.overlay('other', image, options);
      await run(other.rootfs, busy);
      await resetRootfs(other.rootfs, saved);
      expect(await rootfsListing(other.rootfs)).toEqual(wanted);
    },
  );
});

describe.skipIf(obstacle !== undefined)('resetRootfs', () => {
  it('should bring back exactly what was there before an image was applied', async () => {
    const overlay = await lab.overlay('o', image);
    await run(overlay.rootfs, busy);
    const before = await rootfsListing(overlay.rootfs);
    const saved = await lab.make('before');
    await saveRootfs(overlay.rootfs, saved);

    const other = await lab.overlay('other', image);
    await run(other.rootfs, 'rm -r etc opt; mkdir opt; mkfifo etc; ln usr/share/under n; rm usr/bin/b');
    const applied = await lab.make('image');
    await saveRootfs(other.rootfs, applied);
    await resetRootfs(overlay.rootfs, applied);
    expect(await rootfsListing(overlay.rootfs)).toEqual(await rootfsListing(other.rootfs));

    await resetRootfs(overlay.rootfs, saved);
    expect(await rootfsListing(overlay.rootfs)).toEqual(before);
  });

  it('should carry on from the second checkpoint of a restored container', async () => {
    let last: string[] = [];
    for (const [round, script] of [
      'rm -r etc; mkdir etc; echo 1 >etc/n',
      'rm etc/n; echo 2 >opt/n',
      '',
    ].entries()) {
      const { rootfs } = await lab.overlay(`round-${round}`, image);
      if (round > 0) {
        await resetRootfs(rootfs, `${lab.directory}/saved-${round - 1}`);
        expect(await rootfsListing(rootfs)).toEqual(last);
      }
      await run(rootfs, script);
      await saveRootfs(rootfs, await lab.make(`saved-${round}`));
      last = await rootfsListing(rootfs);
    }
  });

  it('should leave the upper layer of a fresh overlay with only what was carried', async () => {
    const { rootfs } = await lab.overlay('old', image);
    await run(rootfs, 'echo new >new');
    await saveRootfs(rootfs, await lab.make('saved'));
    const fresh = await lab.overlay('fresh', image);
    await resetRootfs(fresh.rootfs, await lab.make('saved'));
    const names = (await rootfsListing(fresh.upperdir)).map((line) => line.split(' ')[0]);
    expect(names).toEqual(['"."', '"./new"']);
  });

  it('should keep holes', async () => {
    const { rootfs } = await lab.overlay('old', image);
    await run(rootfs, 'truncate -s 200M hole; echo end >>hole');
    await saveRootfs(rootfs, await lab.make('saved'));
    const fresh = await lab.overlay('fresh', image);
    await resetRootfs(fresh.rootfs, await lab.make('saved'));
    await run(
      lab.directory,
      'test $(du -k fresh/rootfs/hole | cut -f1) -lt 100; test $(du -k saved | cut -f1) -lt 100',
    );
  });

  it('should read many layers whose paths together exceed a page', async () => {
    const home = await lab.make(`${'a-long-name-for-a-directory-of-layers-'.repeat(3)}/layers`);
    await run(
      home,
      'for n in $(seq 100); do mkdir $n; echo $n >$n/$n; done; mkdir -p new/upper new/work new/rootfs',
    );
    const names = Array.from({ length: 100 }, (_, index) => index + 1).join(':');
    const layers = `lowerdir=${names},upperdir=${home}/new/upper,workdir=${home}/new/work`;
    await lab.mount(['-t', 'overlay', '-o', layers, 'overlay'], `${home}/new/rootfs`, home);
    const before = await rootfsListing(`${home}/new/rootfs`);
    await saveRootfs(`${home}/new/rootfs`, await lab.make('saved'));
    await run(`${home}/new/rootfs`, 'rm 7; echo other >8; echo more >more');
    await resetRootfs(`${home}/new/rootfs`, await lab.make('saved'));
    expect(await rootfsListing(`${home}/new/rootfs`)).toEqual(before);
  });

  it("should read the image's layers with the options that the overlay has", async () => {
    const top = await lab.make('top', 'mkdir d; echo shown >d/shown; setfattr -n user.overlay.opaque -v y d');
    const layers = [top, await lab.make('bottom', 'mkdir d; echo hidden >d/hidden')];
    const { rootfs } = await lab.overlay('o', layers, 'userxattr');
    const before = await rootfsListing(rootfs);
    await saveRootfs(rootfs, await lab.make('saved'));
    await run(rootfs, 'rm -r d');
    await resetRootfs(rootfs, await lab.make('saved'));
    expect(await rootfsListing(rootfs)).toEqual(before);
  });

  it('should replace all of a plain directory, and all of an overlay that is to become one', async () => {
    const plain = await lab.make('plain', plainTree);
    const saved = await lab.make('saved');
    expect((await saveRootfs(plain, saved)).kind).toBe('whole');
    const target = await lab.make('target', 'mkdir -p etc/left; echo x >left; setfattr -n user.left -v 1 .');
    await resetRootfs(target, saved);
    expect(await rootfsListing(target)).toEqual(await rootfsListing(plain));
    const { rootfs } = await lab.overlay('o', image);
    await resetRootfs(rootfs, saved);
    expect(await rootfsListing(rootfs)).toEqual(await rootfsListing(plain));
  });
});
