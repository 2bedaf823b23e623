import { describe, expect, it } from 'vitest';
import { demandMemory, withoutPlace } from '../../src/actions/verify-image.ts';
import { problemOf } from '../support/action-thrown.ts';

const file = (bytes: number) => ({ bytes, sha256: 'a'.repeat(64) });
const files = {
  'checkpoint/pages-1.img': file(3 << 20),
  'checkpoint/pages-2.img': file(1 << 20),
  'rootfs-diff.tar': file(1 << 30),
};
const available = (bytes: number) => `MemTotal: 99999999 kB\nMemAvailable:   ${bytes >> 10} kB\n`;

describe('withoutPlace', () => {
  it.each([
    ['--root /run/runc --debug', '--debug'],
    ['--root=/run/runc --systemd-cgroup --criu /opt/criu', '--criu /opt/criu'],
    ['-root /run/runc -systemd-cgroup=true --rootless auto', ''],
  ])('takes the place of a container out of %j', (given, expected) => {
    expect(withoutPlace(given.split(' ')).join(' ')).toBe(expected);
  });
});

describe('demandMemory', () => {
  it('asks for as much as the memory pages take', async () => {
    expect(() => demandMemory({ files }, available(4 << 20))).not.toThrow();
    const problem = await problemOf(() => demandMemory({ files }, available((4 << 20) - 1024)));
    expect(problem.code).toBe('unproven');
    expect(problem.message).toMatch(
      /^the image could not be proven: a copy of the job takes 4194304 bytes .* 4193280 available; make room/,
    );
  });

  it('counts compressed pages as they will be', async () => {
    const compressed = { 'pages-1.img': { bytes: 8 << 20, frames: [1] } };
    const given = { files: { 'checkpoint/pages-1.img.zst': file(1) }, compressed };
    expect(() => demandMemory(given, available(8 << 20))).not.toThrow();
    expect((await problemOf(() => demandMemory(given, available(7 << 20)))).code).toBe('unproven');
  });

  it('asks nothing if the kernel does not say what is available', () => {
    expect(() => demandMemory({ files }, '')).not.toThrow();
  });
});
