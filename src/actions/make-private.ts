import { chmodSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Gives a directory and all below it modes 0700 and 0600: CRIU writes `stats-dump` for everybody to read
 * (mode 0644, seen with 4.2.1), and another version may do so with other files. No link is followed.
 */
export function makePrivate(path: string): void {
  const stats = lstatSync(path);
  if (!stats.isDirectory() && !stats.isFile()) return;
  const mode = stats.isDirectory() ? 0o700 : 0o600;
  if ((stats.mode & 0o7777) !== mode) chmodSync(path, mode);
  if (stats.isDirectory()) for (const name of readdirSync(path)) makePrivate(join(path, name));
}
