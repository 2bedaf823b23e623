import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { chunkBytes } from './file-digests.ts';
import { signManifest, verifyManifest } from './manifest-auth.ts';
import type { ManifestKeys } from './manifest-keys.ts';
import { Problem, reasonOf } from './problem.ts';
import * as z from './schema.ts';

/** Of an image as CRIU and tar have written it, and of one that a Tardis without compression could not restore. */
export const manifestSchemaVersion = 2;
export const compressedSchemaVersion = 3;

const sha256 = z.string().check(z.regex(/^[0-9a-f]{64}$/, 'must be a SHA-256 in hexadecimal'));

/** Switches of `runc checkpoint` that `runc restore` needs as well: nothing else of an image gets into its argv. */
const restoreFlags = ['--tcp-established', '--ext-unix-sk', '--shell-job', '--file-locks'] as const;

/** An image's table of contents and the conditions under which it may be restored: `tardis.json` in the image. */
export const manifestSchema = z.object({
  schemaVersion: z.literal([manifestSchemaVersion, compressedSchemaVersion]),
  key: z.string(),
  generation: z.int().check(z.positive()),
  /** How many lives the job has had: raised by every restore. */
  epoch: z.int().check(z.nonnegative()),
  createdAt: z.string(),
  container: z.object({
    id: z.string(),
    fingerprint: z.string(),
    shape: z.object({
      args: z.array(z.string()),
      cwd: z.string(),
      user: z.unknown(),
      capabilities: z.unknown(),
      terminal: z.boolean(),
      namespaces: z.array(z.string()),
      mountDestinations: z.array(z.string()),
    }),
  }),
  dump: z.object({
    leftRunning: z.boolean(),
    /** runc's flags that the restore needs again, such as `--file-locks`. */
    flags: z.array(z.enum(restoreFlags)),
    /** Pids in the container that were stopped when dumped, and stay so. */
    stoppedTasks: z.array(z.number()),
    /** What the restore needs of volumes, see volume-files.ts; absent in images of an earlier Tardis. */
    volumeFiles: z.optional(
      z.array(
        z.object({
          path: z.string().check(z.startsWith('/')),
          bytes: z.int().check(z.nonnegative()),
          written: z.boolean(),
          appended: z.boolean(),
        }),
      ),
    ),
  }),
  rootfs: z.object({
    kind: z.enum(['overlay', 'whole', 'none']),
    bytes: z.number(),
    entries: z.number(),
    removed: z.number(),
    sockets: z.array(z.string()),
    /** What the changes are to be laid over, see base-identity.ts; absent where that is no overlay. */
    base: z.optional(z.string()),
  }),
  host: z.object({
    arch: z.string(),
    kernel: z.string(),
    cpuFlags: z.array(z.string()),
    criu: z.string(),
    runc: z.string(),
    /** What the kernel can do that a job may use, see kernel-features.ts. */
    kernelFeatures: z.array(z.string()),
  }),
  /** Every file of the image but the manifest, by its path in it; with `chunks`, a digest of digests. */
  files: z.record(
    z.string(),
    z.object({
      bytes: z.int().check(z.nonnegative()),
      sha256,
      chunks: z.optional(z.object({ bytes: z.literal(chunkBytes) })),
    }),
  ),
  /** CRIU's files that are kept compressed, by the names they had, see compression.ts. */
  compressed: z.optional(
    z.record(
      z.string().check(z.regex(/^pages-\d+\.img$/)),
      z.object({
        bytes: z.int().check(z.nonnegative()),
        frames: z.array(z.int().check(z.positive())),
      }),
    ),
  ),
  /** Whose key vouches for all of the above; absent where the host has none. */
  auth: z.optional(z.object({ keyId: z.string(), hmac: sha256 })),
});

export type Manifest = z.infer<typeof manifestSchema>;

export const manifestName = 'tardis.json';

/** The manifest's own digest, over everything else that it says: it tells damage, not malice. */
const digestOf = (said: object): string => createHash('sha256').update(JSON.stringify(said)).digest('hex');

const textOf = (said: object): string => `${JSON.stringify(said, null, 1)}\n`;

/** Writes an image's manifest, signed where there are keys. */
export function writeManifest(directory: string, manifest: Manifest, keys?: ManifestKeys): void {
  const { auth: _, ...said } = manifest;
  const signed = keys ? { ...said, auth: signManifest(said, keys) } : said;
  const text = textOf({ ...signed, sha256: digestOf(signed) });
  fs.writeFileSync(join(directory, manifestName), text, { mode: 0o600 });
}

/**
 * Reads an image's manifest. Without keys a signature cannot be checked, and is not.
 *
 * @throws Problem `image-manifest` where it is missing, torn, changed, or of another schema; `image-auth-missing`,
 * `image-auth-key`, `image-auth` where there are keys and none vouches for it.
 */
export function readManifest(directory: string, keys?: ManifestKeys): Manifest {
  const path = join(directory, manifestName);
  const { manifest, said } = readWhole(path);
  if (keys) verifyManifest(path, said, manifest.auth, keys);
  return manifest;
}

/** The manifest as far as this Tardis knows it, and all that the file says but `auth` and `sha256`. */
function readWhole(path: string): { readonly manifest: Manifest; readonly said: object } {
  try {
    const text = fs.readFileSync(path, 'utf8');
    const whole = JSON.parse(text) as Manifest & { sha256?: string };
    const manifest = manifestSchema.parse(whole);
    const { sha256, ...signed } = whole;
    const found = digestOf(signed);
    if (found !== sha256) throw new Error(`its own SHA-256 is ${found}, it says ${sha256}`);
    // Spaces, or another way to write the same number, would go by the digest.
    if (textOf(whole) !== text) throw new Error('it was written by something else, or changed since');
    const { auth: _, ...said } = signed;
    return { manifest, said };
  } catch (error) {
    const why = error instanceof z.$ZodError ? z.prettifyError(error) : reasonOf(error);
    throw new Problem(
      'image-manifest',
      `${path} is not a manifest of this Tardis (schema ${manifestSchemaVersion} or ${compressedSchemaVersion}): ${reasonOf(why)}; ` +
        'take another image, or the Tardis that wrote it',
      { cause: error },
    );
  }
}
