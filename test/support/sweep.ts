import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { waitFor } from './wait.ts';

/**
 * Takes a stack off the host without asking any of its daemons: processes, mounts, bridges, runc's state, cgroups, and
 * the directory. The directory's own name marks all of these (see stack.ts) and is found nowhere else on the host.
 * Safe to run twice, and on half a stack.
 */
export async function sweep(dir: string): Promise<void> {
  const name = basename(dir);
  // Whoever sleeps in one cannot be ended (test/support/frozen-share.ts).
  for (const mount of mountsUnder(dir)) spawnSync('fsfreeze', ['--unfreeze', mount]);
  await waitFor(
    `the processes of ${dir} to end`,
    () => {
      const pids = processesOf(name);
      pids.forEach(end);
      return pids.length === 0;
    },
    { seen: () => processesOf(name).map(describeProcess).join(', ') },
  );
  for (const socket of shimSockets(dir)) rmSync(socket, { force: true });
  for (const bridge of bridgesOf(dir)) spawnSync('ip', ['link', 'delete', bridge]);
  // A runc that is killed over a restore leaves its bind mount of the root file system in its state.
  for (const mount of [dir, ...runcStatesOf(name)].flatMap(mountsUnder))
    spawnSync('umount', ['--lazy', mount]);
  for (const state of runcStatesOf(name)) rmSync(state, { recursive: true, force: true });
  await waitFor(`the cgroups of ${dir} to go`, () => {
    cgroupsOf(name).forEach(removeCgroup);
    return cgroupsOf(name).length === 0;
  });
  // Removing through a mount that stayed could empty someone else's directory.
  const mounts = mountsUnder(dir);
  if (mounts.length > 0) throw new Error(`cannot unmount ${mounts.join(', ')}; left ${dir} as it is`);
  rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
}

/** What of a stack is still on the host, one line each; empty when it has left without a trace. */
export function leftovers(dir: string): string[] {
  const name = basename(dir);
  return [
    ...processesOf(name).map((pid) => `process ${describeProcess(pid)}`),
    ...mountsUnder(dir).map((mount) => `mount ${mount}`),
    ...cgroupsOf(name).map((cgroup) => `cgroup ${cgroup}`),
    ...runcStatesOf(name).map((state) => `runc state ${state}`),
    ...bridgesOf(dir).map((bridge) => `bridge ${bridge}`),
    ...(existsSync(dir) ? [`directory ${dir}`] : []),
  ];
}

/** Daemons, shims, runtimes and clients have the name among their arguments; a container's processes in their cgroup. */
function processesOf(name: string): number[] {
  return entries('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => pid !== process.pid)
    .filter((pid) => {
      const argv = textOf(`/proc/${pid}/cmdline`);
      // The janitor is told the name too, and has to outlive all the others.
      if (argv.includes('/test/support/janitor.ts\0')) return false;
      return argv.includes(name) || textOf(`/proc/${pid}/cgroup`).includes(name);
    })
    .filter((pid) => !isZombie(pid));
}

function isZombie(pid: number): boolean {
  return /^State:\s+Z/m.test(textOf(`/proc/${pid}/status`));
}

function end(pid: number): void {
  thaw(pid);
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

// A frozen cgroup (v1) keeps even SIGKILL waiting.
function thaw(pid: number): void {
  const cgroup = textOf(`/proc/${pid}/cgroup`);
  const v1 = /^\d+:freezer:(\/.+)$/m.exec(cgroup)?.[1];
  const v2 = /^0::(\/.+)$/m.exec(cgroup)?.[1];
  if (v1 !== undefined) writeIfThere(`/sys/fs/cgroup/freezer${v1}/freezer.state`, 'THAWED');
  if (v2 !== undefined) writeIfThere(`/sys/fs/cgroup${v2}/cgroup.freeze`, '0');
}

function describeProcess(pid: number): string {
  return `${pid} (${textOf(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim()})`;
}

/** Mount points at or below a directory, the last mounted first. */
export function mountsUnder(dir: string): string[] {
  return textOf('/proc/self/mountinfo')
    .split('\n')
    .map((line) => withoutEscapes(line.split(' ')[4] ?? ''))
    .filter((mount) => mount === dir || mount.startsWith(`${dir}/`))
    .reverse();
}

// mountinfo writes a space as \040.
function withoutEscapes(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Where the shims listen: outside the stack's directory, but their bundles say where. */
export function shimSockets(dir: string): string[] {
  const tasks = join(dir, 'state/io.containerd.runtime.v2.task');
  return entries(tasks)
    .flatMap((namespace) =>
      entries(join(tasks, namespace)).map((id) => join(tasks, namespace, id, 'address')),
    )
    .map((file) => textOf(file).trim().replace('unix://', ''))
    .filter((socket) => socket.startsWith('/run/containerd/s/'));
}

/** The bridges of the stack's Docker networks: named after a network's id, and its database has all the names. */
export function bridgesOf(dir: string): string[] {
  const database = textOf(join(dir, 'docker/network/files/local-kv.db'));
  return entries('/sys/class/net').filter(
    (link) => /^br-[0-9a-f]{12}$/.test(link) && database.includes(link),
  );
}

// containerd's runtime keeps runc's state by namespace, outside any stack's directory.
function runcStatesOf(name: string): string[] {
  return entries('/run/containerd/runc')
    .filter((namespace) => namespace.includes(name))
    .map((namespace) => join('/run/containerd/runc', namespace));
}

/** The stack's cgroups in every hierarchy (v1 or v2), children before parents. */
function cgroupsOf(name: string): string[] {
  const top = '/sys/fs/cgroup';
  return [top, ...directories(top)]
    .flatMap(directories)
    .filter((cgroup) => basename(cgroup).includes(name))
    .flatMap((cgroup) => [...descendants(cgroup), cgroup]);
}

function descendants(dir: string): string[] {
  return directories(dir).flatMap((child) => [...descendants(child), child]);
}

function removeCgroup(cgroup: string): void {
  try {
    rmdirSync(cgroup);
  } catch {
    // Busy until its last process is reaped; the caller looks again.
  }
}

function directories(dir: string): string[] {
  try {
    const all = readdirSync(dir, { withFileTypes: true });
    return all.filter((entry) => entry.isDirectory()).map((entry) => join(dir, entry.name));
  } catch {
    return [];
  }
}

function entries(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

function writeIfThere(file: string, text: string): void {
  try {
    if (existsSync(file)) writeFileSync(file, text);
  } catch {
    // Its cgroup has just gone.
  }
}
