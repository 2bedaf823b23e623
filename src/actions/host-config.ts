import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { Problem, reasonOf } from './problem.ts';

const atOnce = z.number().int().min(1).max(256).optional();
const absolutePath = z.string().regex(/^\//, 'must be an absolute path');

/** The host's settings, `/etc/tardis/tardis.json`. Every key is optional. */
export const hostConfigSchema = z.object({
  realRunc: absolutePath
    .optional()
    .describe('The runc that does the work; default: the first other runc on PATH.'),
  checkpointRoot: absolutePath
    .default('/var/lib/tardis/checkpoints')
    .describe('Where images live, as `<key>/<generation>`: a place that outlives the host (EFS, FSx, NFS).'),
  allowedRoots: z
    .array(absolutePath)
    .optional()
    .describe('A container may name a host path only inside one of these; default: checkpointRoot alone.'),
  logFile: absolutePath.default('/var/log/tardis/tardis.jsonl').describe('One JSON object a line.'),
  runDir: absolutePath.default('/run/tardis').describe('The index of enabled containers, and their locks.'),
  lockTimeoutSeconds: z
    .number()
    .int()
    .min(1)
    .max(86_400)
    .default(600)
    .describe('How long a command waits for the one before it on the same container.'),
  hostId: z
    .string()
    .min(1)
    .max(200)
    .optional()
    .describe(
      'How other hosts know this one; default: its boot id and the pid namespace that Tardis runs in.',
    ),
  takeoverAfterSeconds: z
    .number()
    .min(0)
    .max(86_400)
    .default(60)
    .describe(
      'How old a life on another host must be before its host counts as lost and its job is taken up.',
    ),
  restoreAttempts: z
    .number()
    .int()
    .min(1)
    .max(100)
    .default(2)
    .describe('How often the restore of an image may fail before the image is not tried any more.'),
  keep: z
    .number()
    .int()
    .min(1)
    .max(1000)
    .default(2)
    .describe('How many images of a job are kept: the newest ones.'),
  manifestKeys: absolutePath
    .optional()
    .describe(
      'A file of keys: images are signed with one, and only signed ones are restored; default: none.',
    ),
  maxDumps: atOnce.describe(
    'How many containers of the host are dumped at once; the others run on meanwhile. ' +
      'Default: twice the cores, or one for each available GiB of memory where that is less.',
  ),
  maxRestores: atOnce.describe("How many containers' memory is restored at once; default: as for maxDumps."),
  faultInjection: z
    .boolean()
    .optional()
    .describe('For the tests alone: TARDIS_FAULT may kill a wrapper. Only the file is asked, no variable.'),
});

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
 * @throws Problem `host-config` where the file cannot be read, is not JSON, or holds a value of the wrong kind.
 */
export function loadHostConfig(env: NodeJS.ProcessEnv = process.env): LoadedHostConfig {
  const path = env.TARDIS_CONFIG || defaultConfigPath;
  const found = { ...readSettings(path), ...settingsFromEnvironment(env) };
  const known = new Set(Object.keys(hostConfigSchema.shape));
  const unknown = Object.keys(found).filter((name) => !known.has(name));
  const parsed = hostConfigSchema.safeParse(found);
  if (!parsed.success) {
    const issues = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
    throw new Problem('host-config', `${path}: ${issues.join('; ')}`);
  }
  const { allowedRoots, ...rest } = parsed.data;
  return {
    config: { ...rest, allowedRoots: allowedRoots ?? [rest.checkpointRoot] },
    warnings: unknown.map(
      (name) => `${path}: unknown setting "${name}"; expected one of ${[...known].join(', ')}; it is ignored`,
    ),
  };
}

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
  take('keep', 'TARDIS_KEEP', Number);
  take('manifestKeys', 'TARDIS_MANIFEST_KEYS', String);
  take('maxDumps', 'TARDIS_MAX_DUMPS', Number);
  take('maxRestores', 'TARDIS_MAX_RESTORES', Number);
  return settings;
}
