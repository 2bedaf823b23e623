import { createHash } from 'node:crypto';
import { join } from 'node:path';
import fs from 'fs-extra';
import { z } from 'zod';
import { Problem, reasonOf } from './problem.ts';

export const manifestSchemaVersion = 1;

/** An image's table of contents and the conditions under which it may be restored: `tardis.json` in the image. */
export const manifestSchema = z.object({
  schemaVersion: z.literal(manifestSchemaVersion),
  key: z.string(),
  generation: z.number().int().positive(),
  /** How many lives the job has had: raised by every restore. */
  epoch: z.number().int().nonnegative(),
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
    flags: z.array(z.string()),
    /** Pids in the container that were stopped when dumped, and stay so. */
    stoppedTasks: z.array(z.number()),
  }),
  rootfs: z.object({
    kind: z.enum(['overlay', 'whole', 'none']),
    bytes: z.number(),
    entries: z.number(),
    removed: z.number(),
    sockets: z.array(z.string()),
  }),
  host: z.object({
    arch: z.string(),
    kernel: z.string(),
    cpuFlags: z.array(z.string()),
    criu: z.string(),
    runc: z.string(),
  }),
  /** Every file of the image but the manifest, by its path in it. */
  files: z.record(z.string(), z.object({ bytes: z.number().int().nonnegative(), sha256: z.string() })),
});

export type Manifest = z.infer<typeof manifestSchema>;

export const manifestName = 'tardis.json';

/** The manifest's own digest, over everything else that it says. */
const digestOf = (manifest: object): string =>
  createHash('sha256').update(JSON.stringify(manifest)).digest('hex');

export function writeManifest(directory: string, manifest: Manifest): void {
  const text = JSON.stringify({ ...manifest, sha256: digestOf(manifest) }, null, 1);
  fs.writeFileSync(join(directory, manifestName), `${text}\n`, { mode: 0o600 });
}

/**
 * Reads an image's manifest.
 *
 * @throws Problem `image-manifest` where it is missing, torn, changed, or of another schema.
 */
export function readManifest(directory: string): Manifest {
  const path = join(directory, manifestName);
  try {
    const said: unknown = JSON.parse(fs.readFileSync(path, 'utf8'));
    const manifest = manifestSchema.parse(said);
    const { sha256, ...rest } = said as Manifest & { sha256?: string };
    const found = digestOf(rest);
    if (found !== sha256) throw new Error(`its own SHA-256 is ${found}, it says ${sha256}`);
    return manifest;
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : reasonOf(error);
    throw new Problem(
      'image-manifest',
      `${path} is not a manifest of this Tardis (schema ${manifestSchemaVersion}): ${reasonOf(why)}; ` +
        'take another image, or the Tardis that wrote it',
      { cause: error },
    );
  }
}
