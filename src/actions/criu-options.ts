import fs from 'node:fs';
import { join } from 'node:path';

/**
 * Options that CRIU needs and runc has no flag for.
 *
 * They go into `<home>/.criu/default.conf`, and runc is run with HOME=<home>: CRIU reads that file also when runc
 * drives it ("Configuration files", criu(8)), below whatever runc asks for and below a config file named by the
 * container's own `org.criu.config` annotation. The container's config.json stays as it is.
 */
const optionsFor = {
  dump: [
    // Deleted files that are still open are kept whole; CRIU's own limit is 1 MiB.
    'ghost-limit 3G',
    // A name that was unlinked while another link keeps the file.
    'link-remap',
  ],
  restore: [
    // Every task waits in state T; Tardis freezes the cgroup before it continues them.
    'leave-stopped',
  ],
  /** A restore by the caller, from an image that the caller names. */
  adopt: [],
} as const;

/**
 * Connections cannot follow a job to another host: unless the caller asks for them, both ends see them closed. Those
 * that its server has not accepted yet go the same way; without `skip-in-flight` a single one fails the dump.
 */
const closeConnections = {
  dump: ['tcp-close', 'skip-in-flight'],
  restore: ['tcp-close'],
  adopt: ['tcp-close'],
} as const;

/**
 * Writes CRIU's options for one purpose and returns the HOME under which CRIU finds them.
 *
 * @param bundle the container's bundle, in whose `tardis-criu` they are written.
 * @param keepsConnections whether the caller passed `--tcp-established`.
 * @param more options for this one container.
 */
export function writeCriuOptions(
  bundle: string,
  purpose: keyof typeof optionsFor,
  keepsConnections: boolean,
  more: readonly string[] = [],
): string {
  const home = join(bundle, 'tardis-criu', purpose);
  const lines = [...optionsFor[purpose], ...(keepsConnections ? [] : closeConnections[purpose]), ...more];
  fs.mkdirSync(join(home, '.criu'), { recursive: true, mode: 0o700 });
  fs.writeFileSync(join(home, '.criu', 'default.conf'), `${lines.join('\n')}\n`, { mode: 0o600 });
  return home;
}
