import fs from 'node:fs';
import { join } from 'node:path';
import type { ContainerShape } from './container-config.ts';
import { digestsOf, listBelow } from './file-digests.ts';
import { fingerprintOf } from './fingerprint.ts';
import { type HostFacts, isAtLeast } from './host-facts.ts';
import { type Manifest, manifestName, readManifest } from './manifest.ts';
import type { ManifestKeys } from './manifest-keys.ts';
import { Problem } from './problem.ts';

export interface RestoreTarget {
  readonly key: string;
  readonly shape: ContainerShape;
  readonly facts: HostFacts;
  /** The host's keys; without any, signatures are not checked. */
  readonly keys?: ManifestKeys | undefined;
  /** Finds the identity of what the image's changes would be laid over; undefined where that has none. */
  readonly readBase: () => Promise<string | undefined>;
}

const damaged = 'the image was damaged after it was made; take an older generation, or a copy of this one';

/**
 * Decides whether an image may be restored into this container on this host, and returns its manifest.
 *
 * @throws Problem `image-...`: one code and one message a reason, naming what was expected, what was found, and
 * the way out. Nothing has been touched then.
 */
export async function validateImage(directory: string, target: RestoreTarget): Promise<Manifest> {
  const manifest = readManifest(directory, target.keys);
  checkKey(manifest, target.key);
  checkHost(manifest, target.facts);
  checkShape(manifest, target.shape);
  // The one reads the image, the other the layers: neither waits for the other.
  const [base] = await Promise.all([target.readBase(), checkFiles(directory, manifest)]);
  checkBase(manifest, base);
  return manifest;
}

function checkKey(manifest: Manifest, key: string): void {
  if (manifest.key === key) return;
  throw new Problem(
    'image-key',
    `the image is of the job ${manifest.key}, expected ${key}: its directory was moved or copied; move it back, or take that job's key`,
  );
}

function checkHost({ host }: Manifest, facts: HostFacts): void {
  if (host.arch !== facts.arch) {
    throw new Problem(
      'image-arch',
      `the image was dumped on ${host.arch}, this host is ${facts.arch}; restore on ${host.arch}`,
    );
  }
  const has = new Set(facts.cpuFlags);
  const missing = host.cpuFlags.filter((flag) => !has.has(flag));
  if (missing.length > 0) {
    throw new Problem(
      'image-cpu',
      `the job ran on a CPU with ${missing.join(', ')}, which this host's lacks (it would die of SIGILL); ` +
        'restore on a host with the same CPU or a newer one',
    );
  }
  if (!isAtLeast(facts.criu, host.criu)) {
    throw new Problem(
      'image-criu',
      `the image was dumped by CRIU ${host.criu}, this host has ${facts.criu}; update this host's CRIU`,
    );
  }
  const offered = new Set(facts.kernelFeatures);
  const lacking = host.kernelFeatures.filter((feature) => !offered.has(feature));
  if (lacking.length > 0) {
    throw new Problem(
      'image-kernel',
      `the job ran on Linux ${host.kernel} with ${lacking.join(', ')}, which this host's Linux ${facts.kernel} lacks; ` +
        'restore on a host whose kernel has it',
    );
  }
}

function checkBase({ rootfs }: Manifest, found: string | undefined): void {
  if (rootfs.base === undefined || found === undefined || rootfs.base === found) return;
  throw new Problem(
    'image-base',
    `the job's files are changes to the container image ${rootfs.base.slice(0, 12)}, this container's is ` +
      `${found.slice(0, 12)} (SHA-256 of its layers' entries); start it from the same image, or use another ` +
      'TARDIS_CHECKPOINT_KEY for it',
  );
}

function checkShape({ container }: Manifest, shape: ContainerShape): void {
  if (container.fingerprint === fingerprintOf(shape)) return;
  const differences = Object.entries(shape).flatMap(([name, found]) => {
    const expected = container.shape[name as keyof ContainerShape];
    return JSON.stringify(found) === JSON.stringify(expected)
      ? []
      : [`${name}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`];
  });
  throw new Problem(
    'image-config',
    `the container is another one than was dumped (${differences.join('; ')}); use another TARDIS_CHECKPOINT_KEY for it`,
  );
}

async function checkFiles(directory: string, manifest: Manifest): Promise<void> {
  const expected = Object.keys(manifest.files).sort();
  const { files, others } = listBelow(directory);
  const found = files.filter((name) => name !== manifestName);
  const lost = expected.filter((name) => !found.includes(name));
  const extra = [...found.filter((name) => !Object.hasOwn(manifest.files, name)), ...others];
  if (lost.length > 0)
    throw new Problem(
      'image-file-missing',
      `the image lacks ${lost.join(', ')}, which its manifest names; ${damaged}`,
    );
  if (extra.length > 0) {
    throw new Problem(
      'image-file-extra',
      `the image holds ${extra.join(', ')}, which its manifest does not name; take away what does not belong`,
    );
  }
  for (const name of expected) {
    const { size } = fs.statSync(join(directory, name));
    const { bytes } = manifest.files[name] as { bytes: number };
    if (size !== bytes) {
      throw new Problem('image-size', `${name} has ${size} bytes, the manifest says ${bytes}; ${damaged}`);
    }
  }
  const digests = await digestsOf(directory, expected);
  for (const name of expected) {
    const { sha256 } = manifest.files[name] as { sha256: string };
    if (digests[name]?.sha256 !== sha256) {
      throw new Problem(
        'image-digest',
        `${name} has SHA-256 ${digests[name]?.sha256}, the manifest says ${sha256}; ${damaged}`,
      );
    }
  }
}
