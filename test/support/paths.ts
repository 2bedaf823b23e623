import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';

/** The top of this checkout. */
export const projectRoot = resolve(import.meta.dirname, '../..');

/** Where fake executables and sources of test libraries live. */
export const fixturesDir = join(projectRoot, 'test/fixtures');

/** What is slow to build and safe to keep between runs: root file systems, compiled test libraries. */
export const cacheDir = process.env.TARDIS_TEST_CACHE ?? '/var/cache/tardis-tests';

/** The PATH of a host, without what npm adds for its scripts: a daemon would not have that either. */
export function hostPath(): string {
  const inherited = (process.env.PATH ?? '').split(delimiter);
  const own = inherited.filter((dir) => dir !== '' && !dir.includes('node_modules'));
  const usual = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  return [...own, ...usual.filter((dir) => !own.includes(dir))].join(delimiter);
}

/** The absolute path of a program on `path`, or undefined. */
export function which(program: string, path: string = hostPath()): string | undefined {
  return path
    .split(delimiter)
    .map((dir) => join(dir, program))
    .find(isExecutableFile);
}

/** As {@link which}, for programs that the caller has already required. */
export function whichOrThrow(program: string, path: string = hostPath()): string {
  const found = which(program, path);
  if (found === undefined) throw new Error(`found no '${program}' on PATH (${path})`);
  return found;
}

function isExecutableFile(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
