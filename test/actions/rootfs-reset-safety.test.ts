import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { resetRootfs } from '../../src/actions/rootfs-reset.ts';
import { saveRootfs } from '../../src/actions/rootfs-save.ts';
import { rootfsListing } from '../support/rootfs-digest.ts';
import { Lab, overlayObstacle, run } from '../support/rootfs-overlay.ts';

const obstacle = overlayObstacle();
let lab: Lab;
let saved: string;
let outside: string;
beforeEach(async () => {
  lab = new Lab();
  saved = await lab.make('saved');
  outside = await lab.make('outside', 'echo precious >file; mkdir d; echo too >d/file');
});
afterEach(() => lab.close());

async function fresh(name: string, script = 'mkdir d; echo x >d/f'): Promise<string> {
  return (await lab.overlay(name, [await lab.make(`${name}-lower`, script)])).rootfs;
}

/** Saves an overlay's changes, to be spoilt afterwards. */
async function save(script: string, lower?: string): Promise<void> {
  const rootfs = await fresh('source', lower);
  await run(rootfs, script);
  await saveRootfs(rootfs, saved);
}

describe.skipIf(obstacle !== undefined)('resetRootfs, told to do harm', () => {
  it.each(['/etc/passwd', '../x', 'a/../../x', 'a//b', './a', '', 'a/.', '..'])(
    'should refuse to delete %o, and touch nothing',
    async (path) => {
      await save('rm d/f');
      writeFileSync(`${saved}/deleted.files`, `d/f\0${path}\0`);
      const rootfs = await fresh('target');
      const before = await rootfsListing(rootfs);
      await expect(resetRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-unsafe' });
      expect(await rootfsListing(rootfs)).toEqual(before);
    },
  );

  it('should not delete through a symlink that the image has where the container had a directory', async () => {
    await save('rm d/file; echo new >d/new', 'mkdir d; touch d/file');
    const before = await rootfsListing(outside);
    const rootfs = await fresh('target', `ln -s ${outside}/d d; ln -s ${outside} e`);
    writeFileSync(`${saved}/deleted.files`, 'd/file\0e/file\0e/d\0');
    await resetRootfs(rootfs, saved);
    expect(await rootfsListing(outside)).toEqual(before);
    expect(readdirSync(`${rootfs}/d`)).toEqual(['new']);
  });

  it('should not write through a symlink of the image or of the container it becomes', async () => {
    await save('mkdir -p link/in; echo new >link/file; echo new >link/in/file', '');
    const before = await rootfsListing(outside);
    const rootfs = await fresh('target', `ln -s ${outside} link`);
    await resetRootfs(rootfs, saved);
    await run(rootfs, `rm -r link; ln -s ${outside} link`);
    await resetRootfs(rootfs, saved);
    expect(await rootfsListing(outside)).toEqual(before);
    expect(readFileSync(`${rootfs}/link/in/file`, 'utf8')).toBe('new\n');
  });

  it('should not read the host through a symlink of the image', async () => {
    const rootfs = await fresh('target', `ln -s ${outside} d`);
    const empty = await rootfsListing(rootfs);
    await saveRootfs(rootfs, saved);
    await run(rootfs, 'rm d; mkdir d; echo mine >d/file');
    await resetRootfs(rootfs, saved);
    expect(await rootfsListing(rootfs)).toEqual(empty);
  });

  it('should refuse an archive with a file through a symlink, above, or without its directory', async () => {
    const before = await rootfsListing(outside);
    const archive = `${saved}/rootfs-diff.tar`;
    const build = await lab.make('build', 'mkdir l; echo evil >l/file; echo evil >file');
    const spoil: Record<string, string[]> = {
      'without its directory': ['l/file'],
      above: ['--transform=s,^,../,', 'file'],
      absolute: ['--absolute-names', `${build}/file`],
    };
    await save('');
    const rootfs = await fresh('target', `ln -s ${outside} l`);
    for (const args of Object.values(spoil)) {
      await execa('tar', ['--create', '--file', archive, ...args], { cwd: build });
      await expect(resetRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-unsafe' });
    }
    await execa('tar', ['--create', '--file', archive, '--no-recursion', 'l'], { cwd: build });
    await run(build, `rm -r l; ln -s ${outside} l`);
    await execa('tar', ['--append', '--file', archive, 'l'], { cwd: build });
    await run(build, 'rm l; mkdir l; echo evil >l/file');
    await execa('tar', ['--append', '--file', archive, 'l/file'], { cwd: build });
    await expect(resetRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-unsafe' });
    expect(await rootfsListing(outside)).toEqual(before);
  });
});

describe.skipIf(obstacle !== undefined)('resetRootfs, where it cannot', () => {
  it('should refuse a root file system with others mounted below it, before anything is changed', async () => {
    await save('rm -r d');
    const rootfs = await fresh('target');
    await lab.mount(['--bind', outside], `${rootfs}/d`);
    await expect(resetRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-mounts' });
    expect(existsSync(`${outside}/file`)).toBe(true);
  });

  it('should refuse changes that do not fit, and a list or an archive that was cut short', async () => {
    await save('rm d/f; head -c 100000 /dev/urandom >new');
    const plain = await lab.make('plain', 'echo x >f');
    await expect(resetRootfs(plain, saved)).rejects.toMatchObject({ code: 'rootfs-kind' });
    expect(readdirSync(plain)).toEqual(['f']);
    const layers = await lab.make('layers', 'mkdir 1 2 m');
    await lab.mount(['-t', 'overlay', '-o', 'ro,lowerdir=1:2', 'overlay'], `${layers}/m`, layers);
    await expect(resetRootfs(`${layers}/m`, saved)).rejects.toMatchObject({ code: 'rootfs-readonly' });

    const rootfs = await fresh('target');
    const before = await rootfsListing(rootfs);
    await run(saved, 'cp rootfs-diff.tar whole; head -c 50000 whole >rootfs-diff.tar');
    await expect(resetRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-tar' });
    await run(saved, 'mv whole rootfs-diff.tar; printf d/ >deleted.files');
    await expect(resetRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-saved' });
    await run(saved, 'rm deleted.files');
    await expect(resetRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-saved' });
    expect(await rootfsListing(rootfs)).toEqual(before);
  });

  it('should have nothing to do where nothing was saved and nothing can be written', async () => {
    const layers = await lab.make('layers', 'mkdir 1 2 m; touch 1/f');
    await lab.mount(['-t', 'overlay', '-o', 'ro,lowerdir=1:2', 'overlay'], `${layers}/m`, layers);
    await saveRootfs(`${layers}/m`, saved);
    await resetRootfs(`${layers}/m`, saved);
    const rootfs = await fresh('target');
    const before = await rootfsListing(rootfs);
    await run(rootfs, 'rm -r d; touch x');
    await resetRootfs(rootfs, saved);
    // The root directory's own time is now that of the image, as far as it has one.
    expect((await rootfsListing(rootfs)).slice(1)).toEqual(before.slice(1));
  });
});
