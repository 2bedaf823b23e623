import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { Problem, reasonOf } from './problem.ts';
import * as z from './schema.ts';

/** The secrets that manifests are signed with. */
export interface ManifestKeys {
  /** The id of the key that signs. */
  readonly current: string;
  /** Every key that verifies, by its id. */
  readonly secrets: ReadonlyMap<string, Buffer>;
}

/** As long as the digest: a longer secret adds nothing, a shorter one is easier to guess (RFC 2104, section 3). */
const leastSecretBytes = 32;

const fileSchema = z.strictObject({
  current: z.string(),
  keys: z.record(z.string().check(z.minLength(1)), z.string()),
});

/**
 * Reads the key file that the host's settings name; undefined where they name none.
 *
 * @throws Problem `manifest-keys` where it is missing, open to others than root, or not what it should be. No message
 * holds any of its text.
 */
export function readManifestKeys(path: string | undefined): ManifestKeys | undefined {
  if (path === undefined) return undefined;
  const refuse = (found: string, wayOut: string): never => {
    throw new Problem('manifest-keys', `the key file ${path} (setting manifestKeys) ${found}; ${wayOut}`);
  };
  const text = readPrivate(path, refuse);
  const parsed = fileSchema.safeParse(parse(text));
  if (!parsed.success) {
    return refuse(
      'is not JSON of the form { "current": "<key id>", "keys": { "<key id>": "<secret>" } }',
      'write it so',
    );
  }
  const { current, keys } = parsed.data;
  const secrets = new Map<string, Buffer>();
  for (const [id, secret] of Object.entries(keys)) {
    const bytes = decode(secret);
    if (!bytes || bytes.length < leastSecretBytes) {
      return refuse(
        `has a key ${JSON.stringify(id)} that is not hexadecimal or base64 of at least ${leastSecretBytes} bytes`,
        '`openssl rand -hex 32` makes one',
      );
    }
    secrets.set(id, bytes);
  }
  if (!secrets.has(current)) {
    return refuse(
      `says that ${JSON.stringify(current)} is current and holds no key of that id`,
      `set "current" to one of ${[...secrets.keys()].join(', ') || 'its keys'}`,
    );
  }
  return { current, secrets };
}

/** Checks and reads the same file: it is opened once. */
function readPrivate(path: string, refuse: (found: string, wayOut: string) => never): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    return refuse(`cannot be read: ${reasonOf(error)}`, 'put it there, or take the setting away');
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) return refuse('is no regular file', 'put a file there');
    if (stats.uid !== 0 && stats.uid !== process.geteuid?.())
      return refuse(`belongs to the user ${stats.uid}, expected root`, 'chown it, and make new keys');
    if ((stats.mode & 0o077) !== 0) {
      const mode = (stats.mode & 0o7777).toString(8).padStart(4, '0');
      return refuse(`has mode ${mode}, expected 0600`, 'chmod it, and make new keys if others have read it');
    }
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function decode(secret: string): Buffer | undefined {
  if (/^(?:[0-9a-f]{2})+$/i.test(secret)) return Buffer.from(secret, 'hex');
  if (/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/.test(secret))
    return Buffer.from(secret, 'base64');
  return undefined;
}
