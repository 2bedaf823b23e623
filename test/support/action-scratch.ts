import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';

/** A directory of each test's own. */
export interface Scratch {
  readonly path: string;
  /** A path in it, whose directory is there. */
  at(...names: string[]): string;
  /** A shell command that waits until a file in it is there; it ends with the test, too, whose directory goes then. */
  awaiting(name: string): string;
  /** Mounts a small tmpfs on a new directory in it, and returns that; for root only. */
  tmpfs(name: string, options: string): string;
}

export const isRoot = process.getuid?.() === 0;

/** Gives every test of the file or `describe` it is called in a directory, and removes it afterwards. */
export function useScratch(): Scratch {
  let path = '';
  let mounts: string[] = [];
  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), 'tardis-action-'));
    mounts = [];
  });
  afterEach(() => {
    for (const mount of mounts) execFileSync('umount', ['--lazy', mount]);
    rmSync(path, { recursive: true, force: true });
  });
  const at = (...names: string[]): string => {
    const wanted = join(path, ...names);
    mkdirSync(dirname(wanted), { recursive: true });
    return wanted;
  };
  return {
    get path() {
      return path;
    },
    at,
    awaiting: (name) => `while [ -d "${path}" ] && [ ! -e "${at(name)}" ]; do sleep 0.02; done`,
    tmpfs(name, options) {
      const mount = at(name);
      mkdirSync(mount);
      execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', mount]);
      mounts.push(mount);
      return mount;
    },
  };
}
