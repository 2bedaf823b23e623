import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { bootId } from './boot-id.ts';
import type { Host } from './host.ts';
import { reasonOf } from './problem.ts';
import { parseMountinfo } from './rootfs-location.ts';

/** Where the host's cgroup v2 hierarchy is mounted, and its own options (`nsdelegate`, `memory_recursiveprot`). */
interface Hierarchy {
  readonly mountPoint: string;
  readonly options: readonly string[];
}

/**
 * The host's cgroup v2 hierarchy; undefined where there is none.
 *
 * @param mountinfo the text of /proc/self/mountinfo.
 */
export function cgroup2Hierarchy(
  mountinfo = fs.readFileSync('/proc/self/mountinfo', 'latin1'),
): Hierarchy | undefined {
  const mount = parseMountinfo(mountinfo).find(({ type }) => type === 'cgroup2');
  if (!mount) return undefined;
  return {
    mountPoint: mount.mountPoint,
    options: mount.options.filter((option) => option !== 'rw' && option !== 'ro'),
  };
}

/**
 * Runs something that has CRIU in it, and gives the host's cgroup v2 hierarchy its mount options back.
 *
 * CRIU mounts the hierarchy once more for itself, without options; all mounts of it share theirs, so the whole host
 * loses them (criu#3029). Another dump may be under way and have taken them already: they are remembered for all in
 * the run directory, before CRIU is run. What goes wrong here is logged and stops nothing.
 */
export async function keepingCgroup2Options<Result>(
  host: Host,
  work: () => Promise<Result>,
): Promise<Result> {
  const known = attempt(host, () => rememberOptions(host));
  try {
    return await work();
  } finally {
    if (known) await restoreCgroup2Options(host);
  }
}

/** Gives the hierarchy the options back that any wrapper has seen on it since the host was started. */
export async function restoreCgroup2Options(host: Host): Promise<void> {
  const now = attempt(host, cgroup2Hierarchy);
  if (!now) return;
  const lost = readRemembered(host).filter((option) => !now.options.includes(option));
  if (lost.length === 0) return;
  const wanted = ['remount', ...now.options, ...lost].join(',');
  const { execa } = await import('execa');
  const { exitCode, all } = await execa('mount', ['-o', wanted, now.mountPoint], {
    stdin: 'ignore',
    all: true,
    reject: false,
  });
  if (exitCode === 0) host.log.info({ options: lost }, 'gave the cgroup v2 hierarchy its mount options back');
  else
    host.log.warn({ options: lost, reason: all }, `CRIU took mount options of ${now.mountPoint}: remount it`);
}

const fileOf = (host: Host): string => join(host.config.runDir, 'cgroup2-options.json');

/** The options found now and those found before, for all wrappers to come. Nothing is written where there are none. */
function rememberOptions(host: Host): true {
  const now = cgroup2Hierarchy()?.options ?? [];
  const before = readRemembered(host);
  const options = [...new Set([...before, ...now])];
  if (options.length > before.length) {
    const file = fileOf(host);
    const partial = `${file}.${process.pid}`;
    fs.mkdirSync(dirname(file), { recursive: true });
    fs.writeFileSync(partial, `${JSON.stringify({ bootId: bootId(), options })}\n`, { mode: 0o600 });
    fs.renameSync(partial, file);
  }
  return true;
}

function readRemembered(host: Host): string[] {
  try {
    const found = JSON.parse(fs.readFileSync(fileOf(host), 'utf8')) as {
      bootId?: unknown;
      options?: unknown;
    };
    if (found.bootId !== bootId() || !Array.isArray(found.options)) return [];
    return found.options.filter((option) => typeof option === 'string');
  } catch {
    return [];
  }
}

function attempt<Value>(host: Host, action: () => Value): Value | undefined {
  try {
    return action();
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, 'cannot look after the mount options of cgroup v2');
    return undefined;
  }
}
