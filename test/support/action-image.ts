import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ContainerShape } from '../../src/actions/container-config.ts';
import { digestsOf } from '../../src/actions/file-digests.ts';
import { fingerprintOf } from '../../src/actions/fingerprint.ts';
import { type Manifest, writeManifest } from '../../src/actions/manifest.ts';
import type { ManifestKeys } from '../../src/actions/manifest-keys.ts';
import type { RestoreTarget } from '../../src/actions/validate-image.ts';

export const shape: ContainerShape = {
  args: ['/bin/job'],
  cwd: '/',
  user: { uid: 0, gid: 0 },
  capabilities: null,
  terminal: false,
  namespaces: ['mount', 'pid'],
  mountDestinations: ['/proc'],
};

/** The container and the host that the small image was made of. */
export const target: RestoreTarget = {
  key: 'job-key',
  shape,
  facts: {
    ...{ arch: 'x64', kernel: '6.1.0', cpuFlags: ['avx2', 'sse4_2'], criu: '4.1', runc: '1.2.6' },
    kernelFeatures: ['namespace:pid', 'seccomp:log'],
  },
  readBase: async () => 'base',
};

/** A small image's files, without its manifest. */
export const smallFiles: Readonly<Record<string, Buffer>> = {
  'checkpoint/core-1.img': Buffer.from('core'),
  'checkpoint/pages-1.img': Buffer.alloc(100, 7),
  'checkpoint/tcp-stream-1.img': Buffer.alloc(0),
  'config.dump': Buffer.from('{}'),
  'rootfs-diff.tar': Buffer.alloc(1024),
};

export function manifestOf(files: Manifest['files'] = {}): Manifest {
  return {
    schemaVersion: 2,
    key: target.key,
    generation: 3,
    epoch: 0,
    createdAt: '2026-01-02T03:04:05.678Z',
    container: { id: 'job', fingerprint: fingerprintOf(shape), shape: structuredClone(shape) as Mutable },
    dump: { leftRunning: false, flags: ['--file-locks'], stoppedTasks: [17] },
    rootfs: { kind: 'overlay', bytes: 1024, entries: 1, removed: 0, sockets: [], base: 'base' },
    host: {
      ...target.facts,
      cpuFlags: [...target.facts.cpuFlags],
      kernelFeatures: [...target.facts.kernelFeatures],
    },
    files,
  };
}
type Mutable = Manifest['container']['shape'];

/** Writes a whole small image into a directory, signed where there are keys. */
export async function writeSmallImage(directory: string, keys?: ManifestKeys): Promise<Manifest> {
  for (const [name, bytes] of Object.entries(smallFiles)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true, mode: 0o700 });
    writeFileSync(join(directory, name), bytes, { mode: 0o600 });
  }
  const manifest = manifestOf(await digestsOf(directory, Object.keys(smallFiles)));
  writeManifest(directory, manifest, keys);
  return manifest;
}
