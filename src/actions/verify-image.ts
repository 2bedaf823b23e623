import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import { keepingCgroup2Options } from './cgroup2-options.ts';
import { readContainerConfig } from './container-config.ts';
import { lastLine } from './criu-log.ts';
import { writeCriuOptions } from './criu-options.ts';
import { faultPoint, hangingIfOrdered } from './fault.ts';
import { type Host, searchPathOf } from './host.ts';
import { dumpIn, partialOf } from './image-store.ts';
import { type Manifest, readManifest } from './manifest.ts';
import { readManifestKeys } from './manifest-keys.ts';
import { Problem } from './problem.ts';
import { textOf } from './read-or-nothing.ts';
import { restoreArgv, restoreErrors } from './restore-memory.ts';
import { commandOf } from './runc.ts';
import { freshTrial, prepareScratch } from './scratch.ts';
import { dropTrial, findTrialProgram, trialCgroupOf } from './trial-place.ts';
import type { Trial, Verdict } from './trial-restore.ts';
import { cgroupRootAt } from './unified-cgroup.ts';
import { onHost, statOnVolume } from './volume-files.ts';

/**
 * Proves an image by restoring it beside the job: all of it, by the same code as in a real restore, into a copy whose tasks
 * never run. Nothing of the copy is left, whatever comes of it.
 *
 * @throws Problem `unrestorable` where it cannot be restored, with CRIU's reason; `unproven` where that could not be
 * found out; `scratch-full`; `image-compression`; the file system's own error.
 */
export async function verifyImage(host: Host, step: CheckpointStep): Promise<void> {
  const { container, image } = step;
  const manifest = readManifest(partialOf(image), readManifestKeys(host.config.manifestKeys));
  demandMemory(manifest);
  prepareScratch(host, container, await bytesOnScratch(manifest, step), 'to restore the image once takes');
  try {
    const bundle = freshTrial(host, container);
    const began = performance.now();
    const verdict = await keepingCgroup2Options(host, async () => tryOut(host, step, manifest, bundle));
    const ms = Math.round(performance.now() - began);
    if ('failed' in verdict) throw refusalOf(verdict, join(bundle, 'work'));
    host.log.info({ ...verdict, ms }, 'the image was restored once beside the job: it can be');
  } finally {
    await dropTrial(host, container);
  }
}

function refusalOf({ failed, message }: Extract<Verdict, { failed: string }>, work: string): Problem {
  if (failed === 'preparing') return new Problem('unproven', `the image could not be proven: ${message}`);
  const words = (failed === 'memory' && restoreErrors(work)) || message;
  return new Problem('unrestorable', `the image could not be restored: ${words}`);
}

/**
 * Makes sure that the host has the memory for a copy: the kernel would kill somebody for it otherwise, perhaps the job.
 *
 * @param meminfo the text of /proc/meminfo.
 * @throws Problem `unproven`
 */
export function demandMemory(
  { files, compressed = {} }: Pick<Manifest, 'files' | 'compressed'>,
  meminfo = textOf('/proc/meminfo'),
): void {
  const pages = { ...files, ...compressed };
  const needed = Object.entries(pages)
    .filter(([name]) => /(^|\/)pages-\d+\.img$/.test(name))
    .reduce((sum, [, { bytes }]) => sum + bytes, 0);
  const available = 1024 * Number(/^MemAvailable:\s*(\d+) kB$/m.exec(meminfo)?.[1] ?? Number.NaN);
  if (!(available < needed)) return;
  throw new Problem(
    'unproven',
    `the image could not be proven: a copy of the job takes ${needed} bytes of memory, and the host has ${available} ` +
      'available; make room, or do without verifyByRestore',
  );
}

/**
 * What a trial writes, about: the job's changed files, memory that was compressed, and the files on volumes that it may write to, of
 * which an overlay keeps the holes.
 */
async function bytesOnScratch(
  { rootfs, compressed = {}, dump }: Manifest,
  { container }: CheckpointStep,
): Promise<number> {
  const { mounts } = readContainerConfig(container.bundle);
  let bytes = Object.values(compressed).reduce((sum, file) => sum + file.bytes, rootfs.bytes);
  for (const { path, written } of dump.volumeFiles ?? []) {
    const place = written ? onHost(path, mounts) : undefined;
    if (place) bytes += ((await statOnVolume(place))?.blocks ?? 0) * statBlock;
  }
  return bytes;
}

/** st_blocks (inode(7)). */
const statBlock = 512;

/** Runs the trial in namespaces of its own, and ends it. */
async function tryOut(
  host: Host,
  { container, image, call }: CheckpointStep,
  { dump, compressed }: Manifest,
  bundle: string,
): Promise<Verdict> {
  const partial = partialOf(image);
  const work = join(bundle, 'work');
  let files = dumpIn(image);
  if (compressed) {
    const { expandDump } = await import('./compression.ts');
    const expanded = join(bundle, 'checkpoint');
    mkdirSync(expanded, { mode: 0o700 });
    await expandDump(files, expanded, compressed);
    files = expanded;
  }
  const cgroupsPath = trialCgroupOf(container);
  const consoleSocket = 'console.sock';
  const isOnTerminal = readContainerConfig(container.bundle).terminal;
  const keepsConnections = dump.flags.includes('--tcp-established');
  const argv = restoreArgv({
    globals: ['--root', join(bundle, 'runc'), ...withoutPlace(call.globals)],
    restoreFlags: isOnTerminal ? ['--console-socket', consoleSocket] : [],
    ...{ id: 'trial', bundle, work, files, flags: dump.flags },
  });
  const HOME = writeCriuOptions(bundle, 'restore', keepsConnections, cgroupRootAt(cgroupsPath));
  const trial: Trial = {
    ...{ jobBundle: container.bundle, bundle, cgroupsPath, image: partial, consoleSocket },
    command: commandOf(host, argv),
    env: { ...host.env, HOME },
  };
  mkdirSync(work, { mode: 0o700 });
  const told = join(bundle, 'trial.json');
  writeFileSync(told, JSON.stringify(trial), { mode: 0o600 });
  host.watch?.tells(() => lastLine(join(work, 'restore.log')));
  return inNamespaces(host, container.id, bundle, [process.execPath, findTrialProgram(host), told]);
}

/** runc's own global flags without those that say where a container's record and its cgroup are. */
export function withoutPlace(globals: readonly string[]): string[] {
  return globals.filter((word, i) => {
    const before = /^--?(root|rootless)$/.test(globals[i - 1] ?? '');
    return !before && !/^--?(root|rootless|systemd-cgroup)(=.*)?$/.test(word);
  });
}

/**
 * Runs a program in mount, process and network namespaces of its own until it has said its verdict.
 *
 * The first process in there waits for the end of its standard input, which comes with the end of this wrapper, whatever that
 * dies of; and with it the kernel kills all others in there at once, before any of them can see another one end
 * (pid_namespaces(7)): no signal of one reaches another, no process group is orphaned and continued.
 */
async function inNamespaces(
  host: Host,
  id: string,
  bundle: string,
  command: readonly string[],
): Promise<Verdict> {
  const { execa } = await import('execa');
  const { locks = [] } = host;
  // Its copies must not hold the locks of a wrapper.
  const closed = locks.map((_, i) => `${firstLock + i}>&-`).join(' ');
  const script = `{ "$@" 2>trial.log; echo; } ${closed} & exec cat >/dev/null`;
  const namespaces = ['--mount', '--pid', '--net', '--fork', '--mount-proc', '--propagation', 'slave'];
  const [file, args] = hangingIfOrdered('unshare', [...namespaces, 'sh', '-c', script, id, ...command]);
  const child = execa(file, args, {
    stdio: ['pipe', 'pipe', 'ignore', ...locks.map((descriptor) => descriptor as 3)],
    cwd: bundle,
    env: { PATH: searchPathOf(host), LC_ALL: 'C' },
    extendEnv: false,
    reject: false,
  });
  host.watch?.guardian?.work(child.pid);
  child.stdin.on('error', () => {});
  try {
    const line = await Promise.race([firstLine(child.stdout), child.then(() => '')]);
    faultPoint('verifyImage.restored');
    return verdictIn(line, bundle);
  } finally {
    child.stdin.end();
    await child;
    host.watch?.guardian?.work(undefined);
  }
}

/** The locks' first descriptor in the shell. */
const firstLock = 3;

async function firstLine(stream: AsyncIterable<Buffer>): Promise<string> {
  let text = '';
  for await (const piece of stream) {
    text += piece.toString();
    const end = text.indexOf('\n');
    if (end >= 0) return text.slice(0, end);
  }
  return text;
}

function verdictIn(line: string, bundle: string): Verdict {
  try {
    return JSON.parse(line) as Verdict;
  } catch {
    const last = lastLine(join(bundle, 'trial.log'));
    return {
      failed: 'preparing',
      message: `its trial ended before it had a verdict${last ? `: ${last}` : ''}`,
    };
  }
}
