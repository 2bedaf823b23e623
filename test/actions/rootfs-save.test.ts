import { spawn } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { saveRootfs } from '../../src/actions/rootfs-save.ts';
import { bindSocket, Lab, overlayObstacle, run } from '../support/rootfs-overlay.ts';

const obstacle = overlayObstacle();
let lab: Lab;
let saved: string;
beforeEach(async () => {
  lab = new Lab();
  saved = await lab.make('saved');
});
afterEach(() => lab.close());

async function members(): Promise<string[]> {
  const { stdout } = await execa('tar', ['--list', '--file', `${saved}/rootfs-diff.tar`], {
    env: { LC_ALL: 'C' },
  });
  return stdout === '' ? [] : stdout.split('\n').sort();
}

describe.skipIf(obstacle !== undefined)('saveRootfs', () => {
  it('should write an archive and a NUL-separated list, for the owner only', async () => {
    const { rootfs } = await lab.overlay('o', [await lab.make('lower', 'touch a b "c\nd"')]);
    await run(rootfs, 'rm a "c\nd"; echo new >e');
    // A file of an earlier attempt does not lend its mode.
    writeFileSync(`${saved}/rootfs-diff.tar`, 'x'.repeat(100_000), { mode: 0o644 });
    const result = await saveRootfs(rootfs, saved);
    const { size, mode } = statSync(`${saved}/rootfs-diff.tar`);
    expect(result).toEqual({ kind: 'overlay', bytes: size, entries: 2, removed: 2, sockets: [] });
    expect(readFileSync(`${saved}/deleted.files`, 'latin1').split('\0').sort()).toEqual(['', 'a', 'c\nd']);
    expect(await members()).toEqual(['./', 'e']);
    expect([mode & 0o777, statSync(`${saved}/deleted.files`).mode & 0o777]).toEqual([0o600, 0o600]);
  });

  it('should leave sockets out and say which', async () => {
    const { rootfs } = await lab.overlay('o', [await lab.make('lower')]);
    await run(rootfs, `mkdir é; ${bindSocket('é/s')}; ${bindSocket('t')}`);
    const { sockets } = await saveRootfs(rootfs, saved);
    expect(sockets.sort()).toEqual(['t', 'é/s']);
    expect(await members()).toEqual(['./', '\\303\\251/']);
  });

  it("should carry neither the overlay's own marks nor SELinux labels", async () => {
    const options = 'redirect_dir=on,metacopy=on';
    const { rootfs } = await lab.overlay('o', [await lab.make('lower', 'mkdir d; touch d/f m')], options);
    await run(rootfs, 'mv d e; chmod 600 m; mkdir n; setfattr -n user.mine -v 1 n');
    await run(rootfs, 'setfattr -n security.selinux -v "x:y:z:s0" n || true');
    await saveRootfs(rootfs, saved);
    const archive = readFileSync(`${saved}/rootfs-diff.tar`, 'latin1');
    expect(archive).toContain('user.mine');
    expect(archive).not.toMatch(/\.overlay\.|selinux/);
  });

  it('should save a plain directory whole, without other file systems and sockets', async () => {
    const rootfs = await lab.make('plain', `mkdir -p d m; touch d/f; ${bindSocket('d/s')}`);
    await lab.mount(['-t', 'tmpfs', 'tmpfs'], `${rootfs}/m`);
    await run(rootfs, 'touch m/hidden');
    expect(await saveRootfs(rootfs, saved)).toMatchObject({
      kind: 'whole',
      entries: 4,
      removed: 1,
      sockets: ['d/s'],
    });
    expect(await members()).toEqual(['./', 'd/', 'd/f', 'm/']);
    expect(readFileSync(`${saved}/deleted.files`, 'latin1')).toBe('.\0');
  });

  it('should save nothing of a root file system that cannot be written to', async () => {
    const layers = await lab.make('layers', 'mkdir 1 2 m; touch 1/f');
    await lab.mount(['-t', 'overlay', '-o', 'ro,lowerdir=1:2', 'overlay'], `${layers}/m`, layers);
    expect(await saveRootfs(`${layers}/m`, saved)).toMatchObject({ kind: 'none', entries: 0, removed: 0 });
    expect(await members()).toEqual([]);
  });

  it('should refuse an overlay with other file systems mounted below it', async () => {
    const { rootfs } = await lab.overlay('o', [await lab.make('lower', 'mkdir m')]);
    await lab.mount(['-t', 'tmpfs', 'tmpfs'], `${rootfs}/m`);
    await expect(saveRootfs(rootfs, saved)).rejects.toMatchObject({ code: 'rootfs-mounts' });
  });

  it('should report a file that changes while it is read', async () => {
    const { rootfs } = await lab.overlay('o', [await lab.make('lower')]);
    await run(rootfs, 'head -c 300000000 /dev/zero >large');
    const writer = spawn('sh', ['-c', 'while echo x >>large; do :; done'], { cwd: rootfs, stdio: 'ignore' });
    try {
      await expect(saveRootfs(rootfs, saved)).rejects.toMatchObject({
        code: 'rootfs-changed',
        message: expect.stringContaining('large: file changed as we read it'),
      });
    } finally {
      writer.kill('SIGKILL');
    }
  });

  it('should name what cannot be written', async () => {
    const { rootfs } = await lab.overlay('o', [await lab.make('lower')]);
    await run(rootfs, 'head -c 3000000 /dev/urandom >large');
    await lab.mount(['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs'], saved);
    await expect(saveRootfs(rootfs, saved)).rejects.toMatchObject({
      code: 'rootfs-tar',
      message: expect.stringMatching(/No space left on device|Wrote only/),
    });
  });
});
