import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { beforeEach, describe, expect, it } from 'vitest';
import { chooseDumpDirectory, dumpPlaceOf } from '../../src/actions/dump-place.ts';
import { scratchDumpOf } from '../../src/actions/scratch.ts';
import { hostWith } from '../support/action-host.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();

/** A host with its own disk in one place, and what it warns of. */
function hostHere(scratchDir: string, compressionLevel = 0) {
  const warned: string[] = [];
  const log = pino(
    { base: null, level: 'warn' },
    { write: (line: string) => void warned.push(JSON.parse(line).msg) },
  );
  return { host: hostWith({ config: { ...hostWith().config, scratchDir, compressionLevel }, log }), warned };
}

const container = (imageRoot: string) => ({
  ...{ id: 'job', root: scratch.at('root'), bundle: scratch.at('bundle'), key: 'job', imageRoot },
});

/** What the job's cgroup says of its memory, as a number of bytes. */
function job(bytes: number, env: string[] = []): void {
  for (const name of ['bundle', 'cgroup', 'images', 'root/job'])
    mkdirSync(scratch.at(name), { recursive: true });
  writeFileSync(
    scratch.at('bundle', 'config.json'),
    JSON.stringify({ process: { env, args: ['job'] }, root: { path: 'r' } }),
  );
  writeFileSync(scratch.at('cgroup', 'memory.current'), `${bytes}\n`);
  const record = { init_process_pid: 1, init_process_start: 1, cgroup_paths: { '': scratch.at('cgroup') } };
  writeFileSync(scratch.at('root', 'job', 'state.json'), JSON.stringify(record));
}
beforeEach(() => job(1 << 20));

const tmpfs = (name: string, size: string) => scratch.tmpfs(name, `mode=700,size=${size}`);

describe('chooseDumpDirectory', () => {
  it('chooses the image itself if that is on the same file system', () => {
    const { host, warned } = hostHere(scratch.at('own'));
    expect(chooseDumpDirectory(host, container(scratch.at('images')))).toBeUndefined();
    expect(warned).toEqual([]);
  });

  it.runIf(isRoot)("chooses the host's own disk if the image is on another file system", () => {
    const { host, warned } = hostHere(scratch.at('own'));
    const far = container(tmpfs('share', '1m'));
    expect(chooseDumpDirectory(host, far)).toBe(scratchDumpOf(host, far));
    expect(warned).toEqual([]);
  });

  it.runIf(isRoot)('chooses the image itself, and warns, if the own disk has no room for the memory', () => {
    job(2 << 20);
    const { host, warned } = hostHere(tmpfs('own', '1m'));
    expect(chooseDumpDirectory(host, container(scratch.at('images')))).toBeUndefined();
    expect(warned).toEqual([
      expect.stringMatching(
        /^the job's memory takes 2097152 bytes, and .* CRIU dumps into the image itself, /,
      ),
    ]);
  });

  it.runIf(isRoot)('chooses the own disk if it has just enough room', () => {
    const { host, warned } = hostHere(tmpfs('own', '2m'));
    const far = container(scratch.at('images'));
    expect(chooseDumpDirectory(host, far)).toBe(scratchDumpOf(host, far));
    expect(warned).toEqual([]);
  });

  it.each([
    ['the host compresses', 1, []],
    ['the job asks for compression', 0, ['TARDIS_COMPRESSION_LEVEL=3']],
  ])("chooses the host's own disk if %s, wherever the image is", (_, level, env) => {
    job(1 << 20, env);
    const { host } = hostHere(scratch.at('own'), level);
    const near = container(scratch.at('images'));
    expect(chooseDumpDirectory(host, near)).toBe(scratchDumpOf(host, near));
  });

  it('chooses the image itself if the job wants no compression, though the host compresses', () => {
    job(1 << 20, ['TARDIS_COMPRESSION_LEVEL=0']);
    const { host } = hostHere(scratch.at('own'), 3);
    expect(chooseDumpDirectory(host, container(scratch.at('images')))).toBeUndefined();
  });

  it('refuses a disk of the host that others may write to, if it is used', async () => {
    mkdirSync(scratch.at('own'));
    chmodSync(scratch.at('own'), 0o777);
    const images = container(scratch.at('images'));
    const problem = await problemOf(() => chooseDumpDirectory(hostHere(scratch.at('own'), 3).host, images));
    expect(problem.code).toBe('image-mode');
    expect(chooseDumpDirectory(hostHere(scratch.at('own')).host, images)).toBeUndefined();
  });

  it('makes nothing but the place itself, and not even that if it is not used', () => {
    chooseDumpDirectory(hostHere(scratch.at('own')).host, container(scratch.at('images')));
    expect(existsSync(scratch.at('own'))).toBe(false);
    chooseDumpDirectory(hostHere(scratch.at('own'), 3).host, container(scratch.at('images')));
    expect([readdirSync(scratch.at('own')), readdirSync(scratch.at('images'))]).toEqual([[], []]);
  });
});

describe('dumpPlaceOf', () => {
  const image = { generation: 3, directory: '/images/job/3', epoch: 1 };

  it('is the directory that was chosen, or else that of the image', () => {
    expect(dumpPlaceOf({ image: { ...image, dumpDirectory: '/own/checkpoint' } })).toBe('/own/checkpoint');
    expect(dumpPlaceOf({ image })).toBe(join('/images/job/3.partial', 'checkpoint'));
  });
});
