import { readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { chunkBytes, digestsOf } from '../../src/actions/file-digests.ts';
import { fingerprintOf } from '../../src/actions/fingerprint.ts';
import { type Manifest, writeManifest } from '../../src/actions/manifest.ts';
import { type RestoreTarget, validateImage } from '../../src/actions/validate-image.ts';
import { shape, smallFiles, target, writeSmallImage } from '../support/action-image.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();
const at = (name: string): string => scratch.at('image', name);
const validate = (given: RestoreTarget = target): Promise<Manifest> =>
  validateImage(scratch.at('image'), given);
const whole = (): Promise<Manifest> => writeSmallImage(scratch.at('image'));
const onHost = (facts: Partial<RestoreTarget['facts']>): RestoreTarget => ({
  ...target,
  facts: { ...target.facts, ...facts },
});

describe('validateImage', () => {
  it('should pass a whole image, and return its manifest', async () => {
    const manifest = await whole();
    expect(await validate()).toEqual(manifest);
    expect(Object.keys(manifest.files)).toEqual(Object.keys(smallFiles));
  });

  it.each<[what: string, facts: Partial<RestoreTarget['facts']>]>([
    ['more CPU features', { cpuFlags: ['amx', 'avx2', 'sse4_2'] }],
    ['the CPU features in another order', { cpuFlags: ['sse4_2', 'avx2'] }],
    ['a newer CRIU', { criu: '4.1.1' }],
    ['a much newer CRIU', { criu: '10.0' }],
    ['a CRIU that does not say its version', { criu: 'unknown' }],
    ['another kernel and another runc', { kernel: '5.10', runc: '1.1.0' }],
    ['more kernel features', { kernelFeatures: ['namespace:pid', 'namespace:time', 'seccomp:log'] }],
  ])('should pass on a host with %s', async (_, facts) => {
    await whole();
    expect((await validate(onHost(facts))).key).toBe('job-key');
  });

  it.each<[code: string, given: RestoreTarget, words: string[]]>([
    ['image-key', { ...target, key: 'other' }, ['of the job job-key', 'expected other', 'moved or copied']],
    ['image-arch', onHost({ arch: 'arm64' }), ['dumped on x64', 'is arm64', 'restore on x64']],
    ['image-cpu', onHost({ cpuFlags: ['sse4_2', 'avx'] }), ['with avx2,', 'SIGILL', 'same CPU or a newer']],
    ['image-cpu', onHost({ cpuFlags: [] }), ['with avx2, sse4_2,']],
    ['image-criu', onHost({ criu: '4.0' }), ['by CRIU 4.1', 'has 4.0', "update this host's CRIU"]],
    ['image-criu', onHost({ criu: '3.17.1' }), ['has 3.17.1']],
    [
      'image-kernel',
      onHost({ kernel: '4.4', kernelFeatures: ['namespace:pid', 'userfaultfd'] }),
      ['on Linux 6.1.0 with seccomp:log,', "this host's Linux 4.4 lacks", 'a host whose kernel has it'],
    ],
    [
      'image-base',
      { ...target, readBase: async () => 'another' },
      ['changes to the container image base,', "this container's is another", 'start it from the same image'],
    ],
  ])('should refuse with %s, saying what was found and expected', async (code, given, words) => {
    await whole();
    const problem = await problemOf(() => validate(given));
    expect(problem.code).toBe(code);
    for (const word of words) expect(problem.message).toContain(word);
  });

  it.each<[name: keyof typeof shape, found: unknown, words: string]>([
    ['args', ['/bin/other'], 'args: expected ["/bin/job"], found ["/bin/other"]'],
    ['cwd', '/srv', 'cwd: expected "/", found "/srv"'],
    ['user', { uid: 1, gid: 0 }, 'user: expected {"uid":0,"gid":0}, found {"uid":1,"gid":0}'],
    ['capabilities', {}, 'capabilities: expected null, found {}'],
    ['terminal', true, 'terminal: expected false, found true'],
    ['namespaces', ['pid'], 'namespaces: expected ["mount","pid"], found ["pid"]'],
    ['mountDestinations', [], 'mountDestinations: expected ["/proc"], found []'],
  ])(
    'should refuse a container with other %s, and say in what alone it differs',
    async (name, found, words) => {
      await whole();
      const problem = await problemOf(() => validate({ ...target, shape: { ...shape, [name]: found } }));
      expect(problem.code).toBe('image-config');
      expect(problem.message).toContain(`(${words}); use another TARDIS_CHECKPOINT_KEY`);
    },
  );

  it.each<[code: string, damage: () => void, words: string[]]>([
    ['image-manifest', () => rmSync(at('tardis.json')), ['tardis.json', 'ENOENT']],
    [
      'image-file-missing',
      () => rmSync(at('config.dump')),
      ['lacks config.dump, which its manifest names', 'take an older generation, or a copy of this one'],
    ],
    [
      'image-file-missing',
      () => rmSync(at('checkpoint'), { recursive: true }),
      ['core-1.img, checkpoint/pages-1.img'],
    ],
    ['image-file-missing', () => renameSync(at('config.dump'), at('config.dumb')), ['lacks config.dump']],
    [
      'image-file-extra',
      () => writeFileSync(at('checkpoint/core-2.img'), ''),
      ['holds checkpoint/core-2.img'],
    ],
    ['image-file-extra', () => writeFileSync(at('constructor'), ''), ['holds constructor']],
    [
      'image-file-extra',
      () => writeFileSync(at('checkpoint/tardis.json'), ''),
      ['holds checkpoint/tardis.json'],
    ],
    [
      'image-size',
      () => writeFileSync(at('config.dump'), '{} '),
      ['config.dump has 3 bytes', 'says 2', 'an older generation'],
    ],
    [
      'image-size',
      () => writeFileSync(at('rootfs-diff.tar'), ''),
      ['rootfs-diff.tar has 0 bytes', 'says 1024'],
    ],
    [
      'image-digest',
      () => writeFileSync(at('config.dump'), '[]'),
      ['config.dump has SHA-256 4f53cda1', 'says 44136fa3', 'an older generation'],
    ],
  ])('should refuse a damaged image with %s, naming the file', async (code, damage, words) => {
    await whole();
    damage();
    const problem = await problemOf(() => validate());
    expect(problem.code).toBe(code);
    for (const word of words) expect(problem.message).toContain(word);
  });

  it('should refuse a file that was replaced by a symlink to the same bytes', async () => {
    await whole();
    renameSync(at('config.dump'), scratch.at('elsewhere'));
    symlinkSync(scratch.at('elsewhere'), at('config.dump'));
    expect((await problemOf(() => validate())).code).toBe('image-file-missing');
  });

  it('should look at what is quickly told before it reads the files', async () => {
    await whole();
    writeFileSync(at('config.dump'), '[]');
    rmSync(at('rootfs-diff.tar'));
    expect((await problemOf(() => validate({ ...target, key: 'other' }))).code).toBe('image-key');
    expect((await problemOf(() => validate())).code).toBe('image-file-missing');
  });

  it.each<[what: string, base: string | undefined, found: string | undefined]>([
    ['the image says none', undefined, 'base'],
    ['the container has none', 'base', undefined],
  ])('should not ask for the same base where %s', async (_, base, found) => {
    const manifest = await whole();
    writeManifest(scratch.at('image'), { ...manifest, rootfs: { ...manifest.rootfs, base } });
    expect((await validate({ ...target, readBase: async () => found })).rootfs.base).toBe(base);
  });

  // runc's and kill(2)'s arguments come from the manifest, and an image without keys may be anybody's.
  it('should refuse flags that no dump of ours has', async () => {
    const manifest = await whole();
    const flags = ['--file-locks', '--work-path=/etc'] as Manifest['dump']['flags'];
    writeManifest(scratch.at('image'), { ...manifest, dump: { ...manifest.dump, flags } });
    expect((await problemOf(() => validate())).code).toBe('image-manifest');
  });

  it('should change nothing in the image', async () => {
    await whole();
    const before = readFileSync(at('tardis.json'), 'utf8');
    await validate();
    await problemOf(() => validate({ ...target, key: 'other' }));
    expect(readFileSync(at('tardis.json'), 'utf8')).toBe(before);
  });

  it('should go by the fingerprint, whatever the shape in the manifest says', async () => {
    const manifest = await whole();
    const { container } = manifest;
    const fingerprint = fingerprintOf({ ...shape, cwd: '/srv' });
    writeManifest(scratch.at('image'), { ...manifest, container: { ...container, fingerprint } });
    expect((await problemOf(() => validate())).code).toBe('image-config');
  });

  it('should find one byte that is another in any part of a file that is digested in several', async () => {
    const manifest = await whole();
    const bytes = Buffer.alloc(2 * chunkBytes + 5, 1);
    writeFileSync(at('rootfs-diff.tar'), bytes);
    const files = { ...manifest.files, ...(await digestsOf(scratch.at('image'), ['rootfs-diff.tar'])) };
    writeManifest(scratch.at('image'), { ...manifest, files });
    expect((await validate()).files['rootfs-diff.tar']?.chunks).toEqual({ bytes: chunkBytes });
    for (const place of [0, chunkBytes - 1, chunkBytes, 2 * chunkBytes + 4]) {
      bytes[place] = 2;
      writeFileSync(at('rootfs-diff.tar'), bytes);
      expect((await problemOf(() => validate())).code).toBe('image-digest');
      bytes[place] = 1;
    }
  });

  // CRIU would open it as any other image file.
  it('should refuse a symlink that the manifest does not name', async () => {
    await whole();
    symlinkSync('core-1.img', at('checkpoint/core-2.img'));
    expect((await problemOf(() => validate())).code).toBe('image-file-extra');
  });
});
