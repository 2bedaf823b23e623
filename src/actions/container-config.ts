import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { booleanOf, type HostConfig } from './host-config.ts';
import { Problem, reasonOf } from './problem.ts';
import { isInside, nearestFirst, realPathOf } from './real-path.ts';
import * as z from './schema.ts';

/**
 * What Tardis reads of an OCI `config.json` (runtime-spec, config.md). Everything else is runc's business and
 * passes unread. A null is an empty one, as Go reads it.
 */
const specSchema = z.object({
  root: z.object({ path: z.string() }),
  process: z.object({
    terminal: z.nullish(z.boolean()),
    args: z.nullish(z.array(z.string())),
    cwd: z.nullish(z.string()),
    env: z.nullish(z.array(z.string())),
    user: z.optional(z.unknown()),
    capabilities: z.optional(z.unknown()),
  }),
  mounts: z.nullish(
    z.array(
      z.object({
        destination: z.string(),
        type: z.nullish(z.string()),
        source: z.nullish(z.string()),
        options: z.nullish(z.array(z.string())),
      }),
    ),
  ),
  linux: z.nullish(
    z.object({
      namespaces: z.nullish(z.array(z.object({ type: z.string(), path: z.nullish(z.string()) }))),
      cgroupsPath: z.nullish(z.string()),
    }),
  ),
});

export interface ContainerConfig {
  /** The bundle's config.json, byte for byte. */
  readonly text: string;
  readonly env: ReadonlyMap<string, string>;
  /** Absolute. */
  readonly rootfs: string;
  readonly terminal: boolean;
  /** Whether runc makes the container a network namespace of its own, whose `lo` starts down. */
  readonly hasFreshNetwork: boolean;
  /** Whether the container is in the pid namespace of another. */
  readonly joinsPids: boolean;
  /** `linux.cgroupsPath`, where it is given: a path, or for systemd `slice:prefix:name`. */
  readonly cgroupsPath: string | undefined;
  readonly mounts: readonly MountPoint[];
  /** What must be the same for a job to go on in another container. */
  readonly shape: ContainerShape;
}

/** What is mounted in a container. */
export interface MountPoint {
  /** Absolute, in the container, without a slash at its end. */
  readonly destination: string;
  /** Of a bind mount (a volume): what it shows of the host, absolute. Undefined of all others. */
  readonly source: string | undefined;
  readonly readOnly: boolean;
}

export interface ContainerShape {
  readonly args: readonly string[];
  readonly cwd: string;
  readonly user: unknown;
  readonly capabilities: unknown;
  readonly terminal: boolean;
  readonly namespaces: readonly string[];
  readonly mountDestinations: readonly string[];
}

/**
 * Reads and understands a bundle's config.json.
 *
 * @throws Problem `container-config` where it is missing, not JSON, or not an OCI runtime configuration.
 */
export function readContainerConfig(bundle: string): ContainerConfig {
  const path = resolve(bundle, 'config.json');
  let text: string;
  let spec: z.infer<typeof specSchema>;
  try {
    text = readFileSync(path, 'utf8');
    spec = specSchema.parse(JSON.parse(text));
  } catch (error) {
    const why = error instanceof z.$ZodError ? z.prettifyError(error) : reasonOf(error);
    throw new Problem('container-config', `cannot understand ${path}: ${reasonOf(why)}`, { cause: error });
  }
  const namespaces = spec.linux?.namespaces ?? [];
  return {
    text,
    env: environmentOf(spec.process.env ?? []),
    rootfs: resolve(bundle, spec.root.path),
    terminal: spec.process.terminal ?? false,
    hasFreshNetwork: namespaces.some(({ type, path: shared }) => type === 'network' && !shared),
    joinsPids: namespaces.some(({ type, path: shared }) => type === 'pid' && Boolean(shared)),
    cgroupsPath: spec.linux?.cgroupsPath ?? undefined,
    mounts: (spec.mounts ?? []).map((mount) => mountPointOf(mount, bundle)),
    shape: {
      args: spec.process.args ?? [],
      cwd: spec.process.cwd ?? '/',
      user: spec.process.user ?? null,
      capabilities: spec.process.capabilities ?? null,
      terminal: spec.process.terminal ?? false,
      namespaces: namespaces.map(({ type }) => type).sort(),
      mountDestinations: (spec.mounts ?? []).map(({ destination }) => destination).sort(),
    },
  };
}

/** Whether a mount of a configuration shows a path of the host's, as runc tells it (libcontainer/specconv). */
export const isBind = ({
  type,
  options,
}: {
  readonly type?: string | null | undefined;
  readonly options?: readonly string[] | null | undefined;
}): boolean => type === 'bind' || (options ?? []).some((option) => option === 'bind' || option === 'rbind');

/** runc takes a bind mount's source from the bundle where it is relative (libcontainer/specconv, createLibcontainerMount). */
function mountPointOf(
  { destination, type, source, options }: NonNullable<z.infer<typeof specSchema>['mounts']>[number],
  bundle: string,
): MountPoint {
  return {
    destination: resolve('/', destination),
    source: isBind({ type, options }) && source ? resolve(bundle, source) : undefined,
    // `rro` is for all that is mounted below as well (mount(8), recursive attributes).
    readOnly: (options ?? []).some((option) => option === 'ro' || option === 'rro'),
  };
}

function environmentOf(entries: readonly string[]): Map<string, string> {
  const env = new Map<string, string>();
  for (const entry of entries) {
    const equals = entry.indexOf('=');
    if (equals > 0) env.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  return env;
}

/** Whether the container asks for Tardis at all. */
export function isEnabled(env: ReadonlyMap<string, string>): boolean {
  const value = env.get('TARDIS_ENABLE');
  return value === '1' || value?.toLowerCase() === 'true';
}

/** After which endings of its last life a job is resumed from its image. */
export type ResumeAfter = 'preempted' | 'failure' | 'always';

const resumeAfter: ReadonlySet<string> = new Set<ResumeAfter>(['preempted', 'failure', 'always']);

/**
 * `TARDIS_RESUME_AFTER`.
 *
 * @throws Problem `resume-after` for a word that is none of them; the container then runs without Tardis.
 */
export function resumeAfterOf(env: ReadonlyMap<string, string>): ResumeAfter {
  const given = env.get('TARDIS_RESUME_AFTER') || 'preempted';
  if (resumeAfter.has(given)) return given as ResumeAfter;
  throw new Problem(
    'resume-after',
    `TARDIS_RESUME_AFTER ${JSON.stringify(given)} is refused: expected one of ${[...resumeAfter].join(', ')}. ` +
      'The container runs without Tardis',
  );
}

/**
 * `TARDIS_COMPRESSION_LEVEL`: zstd's level for the job's memory; undefined where the host decides.
 *
 * @throws Problem `compression-level` for anything but a whole number from 0 to 19; the container then runs without
 * Tardis.
 */
export function compressionLevelOf(env: ReadonlyMap<string, string>): number | undefined {
  const given = env.get('TARDIS_COMPRESSION_LEVEL');
  if (!given) return undefined;
  if (/^\d{1,2}$/.test(given) && Number(given) <= 19) return Number(given);
  throw new Problem(
    'compression-level',
    `TARDIS_COMPRESSION_LEVEL ${JSON.stringify(given)} is refused: expected a number from 0 (none) to 19. ` +
      'The container runs without Tardis',
  );
}

/** What becomes of files on volumes that are larger than when the job was dumped. */
export type OnGrownFiles = 'refuse' | 'truncate';

/**
 * `TARDIS_ON_GROWN_FILES`.
 *
 * @throws Problem `grown-files` for a word that is none of them; the container then runs without Tardis.
 */
export function onGrownFilesOf(env: ReadonlyMap<string, string>): OnGrownFiles {
  const given = env.get('TARDIS_ON_GROWN_FILES') || 'refuse';
  if (given === 'refuse' || given === 'truncate') return given;
  throw new Problem(
    'grown-files',
    `TARDIS_ON_GROWN_FILES ${JSON.stringify(given)} is refused: expected refuse or truncate. The container runs without Tardis`,
  );
}

/**
 * `TARDIS_VERIFY_BY_RESTORE`: whether an image of the job must have been restored once before it counts; undefined where
 * the host decides.
 *
 * @throws Problem `verify-by-restore` for a word that says neither; the container then runs without Tardis.
 */
export function verifyByRestoreOf(env: ReadonlyMap<string, string>): boolean | undefined {
  const given = env.get('TARDIS_VERIFY_BY_RESTORE');
  if (!given) return undefined;
  const value = booleanOf(given);
  if (value !== undefined) return value;
  throw new Problem(
    'verify-by-restore',
    `TARDIS_VERIFY_BY_RESTORE ${JSON.stringify(given)} is refused: expected 1, true, 0 or false. ` +
      'The container runs without Tardis',
  );
}

export interface ContainerSettings {
  readonly key: string;
  /** The directory that holds `<key>/<generation>`. */
  readonly imageRoot: string;
}

export const keyForm = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}$/;

/** What Tardis names the things in a job's directory: images, their marks, its ledger. */
export const isReservedName = (name: string): boolean =>
  /^(\d+(\.(partial|removed|failed\.jsonl))?|ledger|current(\.\d+)?)$/.test(name);

/**
 * The settings an enabled container carries in its environment.
 *
 * @throws Problem `checkpoint-key` or `checkpoint-path` for a value that is refused; the container then runs
 * without Tardis.
 */
export function settingsOf(
  id: string,
  env: ReadonlyMap<string, string>,
  host: Pick<HostConfig, 'checkpointRoot' | 'allowedRoots' | 'keyPattern'>,
  isReachable = true,
): ContainerSettings {
  resumeAfterOf(env);
  compressionLevelOf(env);
  onGrownFilesOf(env);
  verifyByRestoreOf(env);
  const given = env.get('TARDIS_CHECKPOINT_KEY') || env.get('AWS_BATCH_JOB_ID') || id;
  if (!keyForm.test(given)) {
    throw new Problem(
      'checkpoint-key',
      `the checkpoint key ${JSON.stringify(given)} is refused: expected a letter or digit, then at most 199 letters, ` +
        'digits, "_", ".", ":" or "-"; set TARDIS_CHECKPOINT_KEY to such a word. The container runs without Tardis',
    );
  }
  if (isReservedName(given)) {
    throw new Problem(
      'checkpoint-key',
      `the checkpoint key ${JSON.stringify(given)} is refused: it is a name that Tardis gives to things in a job's directory; ` +
        'set TARDIS_CHECKPOINT_KEY to another word. The container runs without Tardis',
    );
  }
  if (host.keyPattern !== undefined && !new RegExp(`^(?:${host.keyPattern})$`).test(given)) {
    throw new Problem(
      'checkpoint-key',
      `the checkpoint key ${JSON.stringify(given)} is refused: this host takes keys of the form ${host.keyPattern} (keyPattern); ` +
        'set TARDIS_CHECKPOINT_KEY to such a word. The container runs without Tardis',
    );
  }
  const hostPath = env.get('TARDIS_CHECKPOINT_HOST_PATH');
  if (!hostPath) return { key: given, imageRoot: host.checkpointRoot };
  const imageRoot = resolve('/', hostPath);
  const isAllowed = host.allowedRoots.some((root) => isInside(root, imageRoot));
  // A symlink inside a root may lead out of it. Whoever reaches the directory looks again before it is used.
  const real = isAllowed && isReachable ? realPathOf(imageRoot) : imageRoot;
  const isThere =
    !isReachable ||
    nearestFirst(host.allowedRoots, imageRoot).some((root) => isInside(realPathOf(root), real));
  if (!hostPath.startsWith('/') || !isAllowed || !isThere) {
    const found = JSON.stringify(hostPath) + (real === imageRoot ? '' : ` (really ${real})`);
    throw new Problem(
      'checkpoint-path',
      `TARDIS_CHECKPOINT_HOST_PATH ${found} is refused: expected an absolute path inside one of ` +
        `${host.allowedRoots.join(', ')}; add it to allowedRoots in the host's settings. The container runs without Tardis`,
    );
  }
  return { key: given, imageRoot };
}
