import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { nfsBytes, writebackCounter } from '../../src/actions/writeback.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { waitFor } from '../support/wait.ts';

const scratch = useScratch();

/** Writes so much, and waits until it is on the disk. */
function writeThrough(path: string, bytes: number): void {
  const fd = openSync(path, 'w');
  writeSync(fd, Buffer.alloc(bytes, 7));
  fsyncSync(fd);
  closeSync(fd);
}

/** The numbers of the disk below a directory, by coreutils. */
const diskOf = (directory: string): string =>
  `/sys/dev/block/${execFileSync('stat', ['-c', '%Hd:%Ld', directory], { encoding: 'utf8' }).trim()}`;

describe('writebackCounter', () => {
  it("counts the sectors that were written to the directory's own disk", async ({ skip }) => {
    const disk = diskOf(scratch.path);
    skip(!existsSync(disk), 'the temporary directory is on no disk');
    const counter = writebackCounter(scratch.path);
    const before = Number(counter());
    const sectors = () => Number(readFileSync(`${disk}/stat`, 'utf8').trim().split(/\s+/)[6]);
    await waitFor('a moment in which nobody writes', () => Number(counter()) === sectors() || undefined);
    writeThrough(scratch.at('file'), 1 << 20);
    expect(Number(counter()) - before).toBeGreaterThanOrEqual((1 << 20) / 512);
  });

  it.runIf(isRoot)('tells what is dirty on the whole host if the directory is on no disk', async () => {
    const counter = writebackCounter(scratch.tmpfs('memory', 'size=1m'));
    const before = counter();
    expect(before).toMatch(/^Dirty: +\d+ kB,Writeback: +\d+ kB/);
    let round = 0;
    await waitFor('a change', () => {
      execFileSync('dd', ['if=/dev/zero', `of=${scratch.at('dirty')}`, 'bs=1M', `count=${++round}`], {
        stdio: 'ignore',
      });
      return counter() !== before || undefined;
    });
  });

  it('throws if there is no such directory', () => {
    expect(() => writebackCounter(scratch.at('none'))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });
});

/** As Linux writes it, one character a byte (net/sunrpc/stats.c, fs/nfs/super.c; fs/proc_namespace.c escapes the names). */
const mountstats = `device proc mounted on /proc with fstype proc
device server:/export mounted on /efs with fstype nfs4 statvers=1.1
	opts:	rw,vers=4.1,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,sec=sys
	age:	1234
	caps:	caps=0x3ffbffff,wtmult=512,dtsize=1048576,bsize=0,namlen=255
	sec:	flavor=1,pseudoflavor=1
	events:	1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27
	bytes:	1 2 3 4 5 4096 7 8
	RPC iostats version: 1.1  p/v: 100003/4 (nfs)
	xprt:	tcp 0 0 1 0 0 20 20 0 20 0 2 0 0
	per-op statistics
	       WRITE: 2 2 0 8192 256 0 3 4 0

device server:/export/deeper mounted on /efs/deeper with fstype nfs statvers=1.1
	bytes:	11 12 13 14 15 16 17 18
	per-op statistics

device server:/other mounted on /mnt/of\\040many\\040words with fstype nfs4 statvers=1.1
	bytes:	21 22 23 24 25 26 27 28
device server:/older mounted on /twice with fstype nfs4 statvers=1.1
	bytes:	31 32 33 34 35 36 37 38
device server:/newer mounted on /twice with fstype nfs4 statvers=1.1
	bytes:	41 42 43 44 45 46 47 48
device server:/accent mounted on /mnt/caf\xc3\xa9 with fstype nfs4 statvers=1.1
	bytes:	51 52 53 54 55 56 57 58
device fstab mounted on /silent with fstype nfs4 statvers=1.1
	age:	1
device tmpfs mounted on /memory with fstype tmpfs
`;

describe('nfsBytes', () => {
  it.each([
    ['a mount', '/efs', 'bytes:	1 2 3 4 5 4096 7 8'],
    ['a mount inside of another one', '/efs/deeper', 'bytes:	11 12 13 14 15 16 17 18'],
    ['a mount point with blanks', '/mnt/of many words', 'bytes:	21 22 23 24 25 26 27 28'],
    ['a mount point with other letters than ASCII has', '/mnt/café', 'bytes:	51 52 53 54 55 56 57 58'],
    ['the later one of two mounts at one place', '/twice', 'bytes:	41 42 43 44 45 46 47 48'],
    ['a mount that has no such line, though the next one might', '/silent', ''],
    ['a mount that is no NFS', '/memory', ''],
    ['a directory that is no mount', '/efs/deep', ''],
  ])('finds the line of %s', (_, mountPoint, line) => {
    expect(nfsBytes(mountstats, mountPoint)).toBe(line);
  });

  it('finds nothing if there are no statistics', () => {
    expect(nfsBytes('', '/efs')).toBe('');
  });

  it('changes with every byte that goes to the server', () => {
    const later = mountstats.replace(' 4096 ', ' 8192 ');
    expect(nfsBytes(later, '/efs')).not.toBe(nfsBytes(mountstats, '/efs'));
    expect(nfsBytes(later, '/efs/deeper')).toBe(nfsBytes(mountstats, '/efs/deeper'));
  });
});
