import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { resetRootfs } from '../../src/actions/rootfs-reset.ts';
import { saveRootfs } from '../../src/actions/rootfs-save.ts';
import { rootfsListing } from '../support/rootfs-digest.ts';
import { Lab, overlayObstacle, run } from '../support/rootfs-overlay.ts';

/*
 * Archives as somebody would write them who owns the image (no key is configured, or it was stolen). They may do in
 * the container's root file system what they like, for its processes are theirs, too; outside of it, nothing.
 */

const obstacle = overlayObstacle();
let lab: Lab;
let saved: string;
let outside: string;
beforeEach(async () => {
  lab = new Lab();
  saved = await lab.make('saved');
  outside = await lab.make('outside', 'echo precious >file; chmod 600 file; mkdir d; echo too >d/file');
});
afterEach(() => lab.close());

/** A root file system of each kind: an overlay over an image, and a plain directory beside what is outside. */
const kinds = {
  overlay: async (script: string) => (await lab.overlay('target', [await lab.make('lower', script)])).rootfs,
  plain: async (script: string) => lab.make('target', script),
} as const;

interface Entry {
  readonly name: string;
  /** tarfile's type: `0` a file, `1` a hard link, `2` a symlink, `3` and `4` devices, `5` a directory, `6` a pipe. */
  readonly type: string;
  readonly link?: string;
  readonly text?: string;
  readonly xattrs?: Record<string, string>;
}
const file = (name: string, text = 'evil\n'): Entry => ({ name, type: '0', text });
const directory = (name: string): Entry => ({ name, type: '5' });
const symlink = (name: string, link: string): Entry => ({ name, type: '2', link });
const hardLink = (name: string, link: string): Entry => ({ name, type: '1', link });

/** Writes an image's two files, the archive member by member: GNU tar itself would not write some of these. */
async function forge(kind: keyof typeof kinds, entries: Entry[], removed: string[] = []): Promise<void> {
  writeFileSync(
    `${saved}/deleted.files`,
    (kind === 'plain' ? ['.', ...removed] : removed).map((path) => `${path}\0`).join(''),
  );
  const script = `
import io, json, sys, tarfile
with tarfile.open(sys.argv[1], 'w', format=tarfile.PAX_FORMAT) as archive:
    for entry in json.load(sys.stdin):
        member = tarfile.TarInfo(entry['name'])
        member.type = entry['type'].encode()
        member.linkname = entry.get('link', '')
        member.mode = 0o6777
        member.devmajor, member.devminor = 1, 3
        member.pax_headers = {'SCHILY.xattr.' + k: v for k, v in entry.get('xattrs', {}).items()}
        data = entry.get('text', '').encode()
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
`;
  const archive = [directory('.'), ...entries];
  await execa('python3', ['-c', script, `${saved}/rootfs-diff.tar`], { input: JSON.stringify(archive) });
}

describe.skipIf(obstacle !== undefined).each(Object.keys(kinds) as (keyof typeof kinds)[])(
  'an archive of somebody’s, over a root file system that is %s',
  (kind) => {
    const attacks: [what: string, entries: () => Entry[]][] = [
      ['a path above', () => [file('../outside/file')]],
      ['a path above, further down', () => [directory('d'), file('d/../../outside/file')]],
      ['an absolute path', () => [file(`${outside}/file`)]],
      ['a path through the image’s symlink', () => [file('link/file')]],
      ['a path through its own symlink', () => [symlink('l', outside), file('l/file')]],
      ['a path through its own relative symlink', () => [symlink('l', '../../outside'), file('l/file')]],
      [
        'a symlink in place of its own directory',
        () => [directory('l'), symlink('l', outside), file('l/file')],
      ],
      [
        'a symlink in place of a directory with others in it',
        () => [directory('l'), directory('l/d'), symlink('l', outside), file('l/d/file')],
      ],
      ['a symlink, then a file of its name', () => [symlink('l', `${outside}/file`), file('l')]],
      ['a hard link to a file outside', () => [hardLink('h', `${outside}/file`), file('h')]],
      ['a hard link above', () => [hardLink('h', '../outside/file')]],
      ['a hard link through the image’s symlink', () => [hardLink('h', 'link/file')]],
      [
        'a hard link through its own symlink',
        () => [symlink('l', outside), hardLink('h', 'l/file'), file('h', 'x')],
      ],
      ['a file of a multi-volume archive', () => [{ name: 'm', type: 'M' }]],
    ];
    it.each(attacks)('should be refused before anything is touched: %s', async (_, entries) => {
      const rootfs = await kinds[kind](`ln -s ${outside} link; mkdir kept; echo here >kept/file`);
      await forge(kind, entries());
      const before = [await rootfsListing(rootfs), await rootfsListing(outside)];
      await expect(resetRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-unsafe' });
      expect([await rootfsListing(rootfs), await rootfsListing(outside)]).toEqual(before);
      expect(readdirSync(lab.directory).sort()).toEqual(
        [...(kind === 'overlay' ? ['lower'] : []), 'outside', 'saved', 'target'].sort(),
      );
    });

    it('should get its odd names, symlinks and devices, all inside', async () => {
      const rootfs = await kinds[kind](`ln -s ${outside} link; ln -s ${outside}/file name`);
      const odd = [
        '-rf',
        '--checkpoint-action=exec=touch evil',
        'a\nb',
        ' ',
        '"q"',
        'a" link to "b',
        '\\',
        '*',
        '~',
      ];
      await forge(kind, [
        ...odd.map((name) => file(name)),
        symlink('absolute', `${outside}/file`),
        symlink('relative', '../../outside/file'),
        hardLink('again', '-rf'),
        { name: 'null', type: '3' },
        { name: 'block', type: '4' },
        { name: 'pipe', type: '6' },
        // In place of symlinks of the image that lead outside.
        file('name'),
        directory('link'),
        file('link/file'),
      ]);
      const before = await rootfsListing(outside);
      await resetRootfs(rootfs, saved);
      await resetRootfs(rootfs, saved);
      expect(await rootfsListing(outside)).toEqual(before);
      for (const name of [...odd, 'name', 'link/file', 'again'])
        expect(readFileSync(`${rootfs}/${name}`, 'utf8'), name).toBe('evil\n');
      expect(readlinkSync(`${rootfs}/absolute`)).toBe(`${outside}/file`);
      expect(readlinkSync(`${rootfs}/relative`)).toBe('../../outside/file');
      expect(lstatSync(`${rootfs}/again`).ino).toBe(lstatSync(`${rootfs}/-rf`).ino);
      const [device, block] = [lstatSync(`${rootfs}/null`), lstatSync(`${rootfs}/block`)];
      expect([device.isCharacterDevice(), device.rdev, block.isBlockDevice()]).toEqual([true, 0x103, true]);
      expect(lstatSync(`${rootfs}/pipe`).isFIFO()).toBe(true);
      expect(existsSync(`${lab.directory}/evil`)).toBe(false);
    });

    // `redirect` would show another directory of the image, `opaque` hide what is below.
    it('should not get attributes that an overlay goes by', async () => {
      const rootfs = await kinds[kind]('mkdir d; echo x >d/f');
      const overlays = { 'trusted.overlay.opaque': 'y', 'user.overlay.redirect': '/etc', 'user.mine': '1' };
      await forge(kind, [{ ...directory('new'), xattrs: overlays }]);
      await resetRootfs(rootfs, saved);
      const listing = (await rootfsListing(rootfs)).join('\n');
      expect(listing).not.toContain('overlay');
      expect(listing).toContain('user.mine');
    });

    it.each(['..', '../outside/file', '/etc/passwd', 'd/../../outside', 'd//f', './d', ''])(
      'should not have %j removed',
      async (path) => {
        const rootfs = await kinds[kind]('mkdir d; echo x >d/f');
        await forge(kind, [], [path]);
        const before = [await rootfsListing(rootfs), await rootfsListing(outside)];
        await expect(resetRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-unsafe' });
        expect([await rootfsListing(rootfs), await rootfsListing(outside)]).toEqual(before);
      },
    );

    it('should have nothing removed through a symlink, and odd names like any other', async () => {
      const rootfs = await kinds[kind](
        `ln -s ${outside} link; ln -s ../../outside up; touch -- -rf "$(printf 'a\\nb')"`,
      );
      await forge(kind, [], ['link/file', 'link/d', 'up/file', '-rf', 'a\nb', 'link']);
      const before = await rootfsListing(outside);
      await resetRootfs(rootfs, saved);
      expect(await rootfsListing(outside)).toEqual(before);
      expect(readdirSync(rootfs)).toEqual(kind === 'overlay' ? ['up'] : []);
    });
  },
);

describe.skipIf(obstacle !== undefined)('a root file system that is named by a symlink', () => {
  it('should be changed where it really is, and the symlink stay', async () => {
    const { rootfs } = await lab.overlay('source', [await lab.make('base', 'echo x >f')]);
    await run(rootfs, 'rm f; echo new >g');
    await saveRootfs(rootfs, saved);
    const target = await lab.overlay('target', [await lab.make('base')]);
    await run(lab.directory, `ln -s ${target.rootfs} named`);
    await resetRootfs(`${lab.directory}/named`, saved);
    expect(readdirSync(target.rootfs)).toEqual(['g']);
    expect(readlinkSync(`${lab.directory}/named`)).toBe(target.rootfs);
  });
});
