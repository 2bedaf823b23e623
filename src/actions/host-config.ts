import { readFileSync } from 'node:fs';
import { Problem, reasonOf } from './problem.ts';
import * as z from './schema.ts';

const absolutePath = z.string().check(z.regex(/^\//, 'must be an absolute path'));
const count = (least: number, most: number) => z.int().check(z.minimum(least), z.maximum(most));
/** Above 19, zstd needs more memory than a host with other work may have (zstd's manual, `--ultra`). */
export const compressionLevel = count(0, 19);
/** Of a limit: none is no limit at all. */
const limitSeconds = (most: number) => z.number().check(z.minimum(1), z.maximum(most));
const seconds = z.number().check(z.minimum(0), z.maximum(86_400));

const weekSeconds = 604_800;
const yearSeconds = 31_536_000;

/** Added to maxFreezeSeconds for each GiB of a job's memory: a slow share takes 17 MiB a second. */
export const freezeSecondsPerGiB = 60;

/** The host's settings, `/etc/tardis/tardis.json`. Every key is optional. */
export const hostConfigSchema = z.object({
  /** The runc that does the work; default: the first other runc on PATH. */
  realRunc: z.optional(absolutePath),
  /** Where images live, as `<key>/<generation>`: a place that outlives the host (EFS, FSx, NFS). */
  checkpointRoot: z._default(absolutePath, '/var/lib/tardis/checkpoints'),
  /** A container may name a host path only inside one of these; default: checkpointRoot alone. */
  allowedRoots: z.optional(z.array(absolutePath)),
  /** One JSON object a line. */
  logFile: z._default(absolutePath, '/var/log/tardis/tardis.jsonl'),
  /** The index of enabled containers, and their locks. */
  runDir: z._default(absolutePath, '/run/tardis'),
  /** How long a command waits for the one before it on the same container. */
  lockTimeoutSeconds: z._default(count(1, 86_400), 600),
  /** How other hosts know this one; default: its boot id and the pid namespace that Tardis runs in. */
  hostId: z.optional(z.string().check(z.minLength(1), z.maxLength(200))),
  /** How old a life on another host must be before its host counts as lost and its job is taken up. */
  takeoverAfterSeconds: z._default(seconds, 60),
  /** How often the restore of an image may fail before the image is not tried any more. */
  restoreAttempts: z._default(count(1, 100), 2),
  /** A regular expression: which keys a container may choose, as a whole. Default: any. */
  keyPattern: z.optional(z.string().check(z.refine(isPattern, 'must be a regular expression'))),
  /** How many images of a job are kept: the newest ones. */
  keep: z._default(count(1, 1000), 2),
  /** How long the images of a job that ended by itself, and is not resumed after that, are kept. */
  keepFinishedSeconds: z._default(z.number().check(z.minimum(0), z.maximum(10 * yearSeconds)), weekSeconds),
  /** A file of keys: images are signed with one, and only signed ones are restored; default: none. */
  manifestKeys: z.optional(absolutePath),
  /**
   * How many containers of the host are dumped at once; the others run on meanwhile. Default: twice the cores, or one
   * for each available GiB of memory where that is less.
   */
  maxDumps: z.optional(count(1, 256)),
  /** How many containers' memory is restored at once; default: as for maxDumps. */
  maxRestores: z.optional(count(1, 256)),
  /** zstd's level for the memory of a job, where the job does not say; 0 leaves it as it is. */
  compressionLevel: z._default(compressionLevel, 0),
  /** Where memory waits on its way into a compressed image or out of it: a disk of the host's own. */
  scratchDir: z._default(absolutePath, '/var/lib/tardis/scratch'),
  /** How long a checkpoint or a restore may go without any progress before it is ended, its job thawed or started from scratch. */
  freezeStallSeconds: z._default(limitSeconds(3600), 30),
  /** How long a job may be frozen for one checkpoint; {@link freezeSecondsPerGiB} more for each GiB of its memory. */
  maxFreezeSeconds: z._default(limitSeconds(86_400), 900),
  /** How long the place of the images may take to answer before it counts as unreachable. */
  shareTimeoutSeconds: z._default(limitSeconds(60), 5),
  /** What a create does whose job's images cannot be reached: start from scratch, or fail, so that it is tried again. */
  onUnreachable: z._default(z.enum(['scratch', 'fail']), 'scratch'),
  /** Whether an image must have been restored once before it is committed, where the job does not say. */
  verifyByRestore: z._default(z.boolean(), false),
  /** What becomes of an image whose container allowed more than the new one does: it is refused, or restored with a warning. */
  onStricterDefinition: z._default(z.enum(['refuse', 'warn']), 'refuse'),
  /** For the tests alone: TARDIS_FAULT may kill a wrapper. Only the file is asked, no variable. */
  faultInjection: z.optional(z.boolean()),
});

function isPattern(text: string): boolean {
  try {
    new RegExp(text);
    return true;
  } catch {
    return false;
  }
}

export type HostConfig = Omit<z.infer<typeof hostConfigSchema>, 'allowedRoots'> & {
  readonly allowedRoots: readonly string[];
};

export interface LoadedHostConfig {
  readonly config: HostConfig;
  /** What the file holds that Tardis does not know. */
  readonly warnings: readonly string[];
}

/** Where the host's settings are read from, unless TARDIS_CONFIG names another file. */
export const defaultConfigPath = '/etc/tardis/tardis.json';

/**
 * Reads the host's settings; a missing file means the defaults.
 *
 * A value of the wrong kind costs its default, with a warning.
 *
 * @throws Problem `host-config` where the file cannot be read, is not JSON, or where such a value has no substitute.
 */
export function loadHostConfig(env: NodeJS.ProcessEnv = process.env): LoadedHostConfig {
  const path = env.TARDIS_CONFIG || defaultConfigPath;
  const found: Record<string, unknown> = { ...readSettings(path), ...settingsFromEnvironment(env) };
  const known = new Set(Object.keys(hostConfigSchema.shape));
  const unknown = Object.keys(found).filter((name) => !known.has(name));
  const warnings = unknown.map(
    (name) => `${path}: unknown setting "${name}"; expected one of ${[...known].join(', ')}; it is ignored`,
  );
  let parsed = hostConfigSchema.safeParse(found);
  if (!parsed.success) {
    const issues = parsed.error.issues.map((issue) => ({
      name: String(issue.path[0]),
      words: `${issue.path.join('.')}: ${issue.message}`,
    }));
    if (issues.some(({ name }) => withoutDefault.has(name)))
      throw new Problem('host-config', `${path}: ${issues.map(({ words }) => words).join('; ')}`);
    for (const { name, words } of issues) {
      delete found[name];
      warnings.push(`${path}: ${words}; the default is taken`);
    }
    parsed = hostConfigSchema.safeParse(found);
  }
  const { allowedRoots, ...rest } = parsed.data as z.infer<typeof hostConfigSchema>;
  return { config: { ...rest, allowedRoots: allowedRoots ?? [rest.checkpointRoot] }, warnings };
}

/** Settings whose default is no substitute: it could lead to other images, to fewer of them, or to unsigned ones. */
const withoutDefault: ReadonlySet<string> = new Set([
  ...['realRunc', 'checkpointRoot', 'allowedRoots', 'runDir', 'scratchDir'],
  ...['manifestKeys', 'hostId', 'keep', 'keyPattern'],
]);

/** The settings of a host whose file cannot be used; only its log and its directories are ever looked at. */
export function defaultConfig(env: NodeJS.ProcessEnv): HostConfig {
  const { logFile, runDir } = settingsFromEnvironment(env);
  const given = hostConfigSchema.safeParse({ logFile, runDir });
  const { allowedRoots, ...config } = given.success ? given.data : hostConfigSchema.parse({});
  return { ...config, allowedRoots: allowedRoots ?? [config.checkpointRoot] };
}

function readSettings(path: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new Problem('host-config', `cannot read ${path}: ${reasonOf(error)}`, { cause: error });
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch (error) {
    throw new Problem('host-config', `${path} is not JSON: ${reasonOf(error)}`, { cause: error });
  }
  throw new Problem('host-config', `${path} holds something else than a JSON object of settings`);
}

/** What an environment variable says that is a switch; undefined where it is neither. */
export function booleanOf(text: string): boolean | undefined {
  const word = text.toLowerCase();
  if (word === '1' || word === 'true') return true;
  return word === '0' || word === 'false' ? false : undefined;
}

/** Settings as environment variables of the wrapper, for tests and one-off runs. */
function settingsFromEnvironment(env: NodeJS.ProcessEnv): Record<string, unknown> {
  const settings: Record<string, unknown> = {};
  const take = (name: string, variable: string, convert: (text: string) => unknown): void => {
    const text = env[variable];
    if (text) settings[name] = convert(text);
  };
  take('realRunc', 'TARDIS_REAL_RUNC', String);
  take('checkpointRoot', 'TARDIS_CHECKPOINT_ROOT', String);
  take('allowedRoots', 'TARDIS_ALLOWED_ROOTS', (text) => text.split(':'));
  take('logFile', 'TARDIS_LOG_FILE', String);
  take('runDir', 'TARDIS_RUN_DIR', String);
  take('lockTimeoutSeconds', 'TARDIS_LOCK_TIMEOUT_SECONDS', Number);
  take('hostId', 'TARDIS_HOST_ID', String);
  take('takeoverAfterSeconds', 'TARDIS_TAKEOVER_AFTER_SECONDS', Number);
  take('restoreAttempts', 'TARDIS_RESTORE_ATTEMPTS', Number);
  take('keyPattern', 'TARDIS_KEY_PATTERN', String);
  take('keep', 'TARDIS_KEEP', Number);
  take('keepFinishedSeconds', 'TARDIS_KEEP_FINISHED_SECONDS', Number);
  take('manifestKeys', 'TARDIS_MANIFEST_KEYS', String);
  take('maxDumps', 'TARDIS_MAX_DUMPS', Number);
  take('compressionLevel', 'TARDIS_COMPRESSION_LEVEL', Number);
  take('scratchDir', 'TARDIS_SCRATCH_DIR', String);
  take('freezeStallSeconds', 'TARDIS_FREEZE_STALL_SECONDS', Number);
  take('maxFreezeSeconds', 'TARDIS_MAX_FREEZE_SECONDS', Number);
  take('shareTimeoutSeconds', 'TARDIS_SHARE_TIMEOUT_SECONDS', Number);
  take('onUnreachable', 'TARDIS_ON_UNREACHABLE', String);
  take('onStricterDefinition', 'TARDIS_ON_STRICTER_DEFINITION', String);
  take('maxRestores', 'TARDIS_MAX_RESTORES', Number);
  // What is no switch is refused by its own words.
  take('verifyByRestore', 'TARDIS_VERIFY_BY_RESTORE', (text) => booleanOf(text) ?? text);
  return settings;
}
