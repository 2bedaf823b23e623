import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { MountPoint } from '../../src/actions/container-config.ts';
import { onHost, sizeOnVolume, volumeFilesOf, volumeOf } from '../../src/actions/volume-files.ts';
import { criuImage, encode } from '../support/action-protobuf.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();

const mount = (destination: string, source?: string): MountPoint => ({
  destination,
  source,
  readOnly: false,
});
const mounts = [mount('/proc'), mount('/data', '/srv/data'), mount('/data/tmp'), mount('/etc/hosts', '/h')];

const readOnly = 0;
const readWrite = 2;
const appended = 0x401;
/** A regular file; without a size where CRIU does not compare it. */
const regular = (id: number, name: string, flags: number, size?: number): Buffer => {
  const fields: [number, number | string | Buffer][] = [
    [1, id],
    [2, flags],
    [3, 0],
    [5, encode([1, 0])],
    [6, name],
    ...(size === undefined ? [] : [[8, size] as [number, number]]),
  ];
  return encode([1, 1], [2, id], [3, encode(...fields)]);
};

describe('volumeFilesOf', () => {
  const files = (...entries: Buffer[]): void => writeFileSync(scratch.at('files.img'), criuImage(...entries));
  const found = () => volumeFilesOf(scratch.path, mounts);

  it('names the files on volumes that CRIU compares, and those that the job writes', async () => {
    files(
      regular(1, '/data/table', readWrite, 4096),
      regular(2, '/data/corpus', readOnly, 70),
      regular(3, '/data/log', appended),
      regular(4, '/bin/job', readOnly, 900),
      regular(5, '/data/tmp/x', readWrite, 5),
      regular(6, '/etc/hosts', readOnly, 12),
      regular(7, '/database', readWrite, 1),
    );
    expect(await found()).toEqual([
      { path: '/data/corpus', bytes: 70, written: false, appended: false },
      { path: '/data/table', bytes: 4096, written: true, appended: false },
      { path: '/etc/hosts', bytes: 12, written: false, appended: false },
    ]);
  });

  it('knows that a file is written which the job reads by one descriptor and appends to by another', async () => {
    files(regular(1, '/data/log', appended), regular(2, '/data/log', readOnly, 33));
    expect(await found()).toEqual([{ path: '/data/log', bytes: 33, written: true, appended: false }]);
  });

  it('takes the size of one that is only appended to from the volume', async () => {
    files(regular(1, '/vol/log', appended), regular(2, '/vol/gone', appended));
    writeFileSync(scratch.at('vol', 'log'), 'a line');
    expect(await volumeFilesOf(scratch.path, [mount('/vol', scratch.at('vol'))])).toEqual([
      { path: '/vol/log', bytes: 6, written: true, appended: true },
    ]);
  });

  it('leaves out what CRIU finds by another name', async () => {
    files(regular(1, '/data/gone', readWrite, 9), regular(2, '/data/link_remap.1', readWrite, 9));
    writeFileSync(scratch.at('remap-fpath.img'), criuImage(encode([1, 1], [2, 2])));
    expect(await found()).toEqual([]);
  });
});

describe('onHost', () => {
  it.each([
    ['/data/a/b', { source: '/srv/data', names: ['a', 'b'] }],
    ['/etc/hosts', { source: '/h', names: [] }],
    ['/data/tmp/x', undefined],
    ['/database', undefined],
    ['/x', undefined],
  ])('leads from %s in the container to the host', (path, expected) => {
    expect(onHost(path, mounts)).toEqual(expected);
  });

  it('takes of two volumes on one path the one that hides the other', () => {
    expect(volumeOf('/d/x', [mount('/d', '/1'), mount('/d', '/2')])?.source).toBe('/2');
  });
});

describe('sizeOnVolume', () => {
  const size = (...names: string[]) => sizeOnVolume({ source: scratch.at('volume'), names });

  it('follows no symlink out of the volume, and waits for no pipe', async () => {
    mkdirSync(scratch.at('volume'));
    mkdirSync(scratch.at('outside'));
    writeFileSync(scratch.at('outside', 'secret'), 'of the host');
    mkdirSync(scratch.at('volume', 'a'));
    writeFileSync(scratch.at('volume', 'a', 'file'), '12345');
    symlinkSync(scratch.at('outside'), scratch.at('volume', 'way'));
    symlinkSync(scratch.at('outside', 'secret'), scratch.at('volume', 'link'));
    expect(await size('a', 'file')).toBe(5);
    expect(await size('way', 'secret')).toBeUndefined();
    expect(await size('link')).toBeUndefined();
    expect(await size('a')).toBeUndefined();
    expect(await size('none')).toBeUndefined();
    execFileSync('mkfifo', [scratch.at('volume', 'pipe')]);
    expect(await size('pipe')).toBeUndefined();
  });

  it.runIf(isRoot)('opens no device that somebody has put in the place of a file', async () => {
    mkdirSync(scratch.at('volume'));
    // A driver of its own number is asked at an open: there is none, ENXIO would say so.
    execFileSync('mknod', [scratch.at('volume', 'device'), 'c', '240', '77']);
    expect(await size('device')).toBeUndefined();
  });

  it('follows the symlink that the volume itself is: who made the container has named it', async () => {
    mkdirSync(scratch.at('real'));
    writeFileSync(scratch.at('real', 'file'), '123');
    symlinkSync(scratch.at('real'), scratch.at('volume'));
    expect(await size('file')).toBe(3);
    symlinkSync(scratch.at('real', 'file'), scratch.at('by-itself'));
    expect(await sizeOnVolume({ source: scratch.at('by-itself'), names: [] })).toBe(3);
  });
});
