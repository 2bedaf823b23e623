import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { whichOrThrow } from './paths.ts';
import { run } from './run.ts';

/** Writes `<dir>/layer.tar`: a root file system of the host's static busybox, with a link for every applet. */
export async function buildBusyboxLayer(dir: string): Promise<void> {
  const busybox = whichOrThrow('busybox');
  const rootfs = mkdtempSync(join(dir, 'rootfs-'));
  for (const made of ['bin', 'etc', 'proc', 'sys', 'dev', 'root', 'var', 'home', 'home/job']) {
    mkdirSync(join(rootfs, made));
  }
  for (const shared of ['tmp', 'var/tmp']) mkdirSync(join(rootfs, shared));
  copyFileSync(busybox, join(rootfs, 'bin/busybox'));
  const applets = (await run(busybox, ['--list'])).stdout.split('\n');
  for (const applet of applets.filter((name) => name !== 'busybox')) {
    symlinkSync('busybox', join(rootfs, 'bin', applet));
  }
  writeFileSync(
    join(rootfs, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\njob:x:1000:1000:job:/home/job:/bin/sh\n',
  );
  writeFileSync(join(rootfs, 'etc/group'), 'root:x:0:\njob:x:1000:\n');
  await run('chmod', ['1777', join(rootfs, 'tmp'), join(rootfs, 'var/tmp')]);
  await run('chmod', ['0755', rootfs]);
  await run('chown', ['1000:1000', join(rootfs, 'home/job')]);
  await run('tar', [
    '--create',
    '--file',
    join(dir, 'layer.tar'),
    '--numeric-owner',
    // Two hosts' images are the same one: Tardis tells images apart by what is in their layers, times included.
    '--mtime=@1700000000',
    '--sort=name',
    '--directory',
    rootfs,
    '.',
  ]);
  rmSync(rootfs, { recursive: true });
}
