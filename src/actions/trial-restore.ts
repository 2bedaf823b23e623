import { chmodSync, chownSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { readContainerConfig } from './container-config.ts';
import { patienceMs } from './freezer.ts';
import { Problem, reasonOf } from './problem.ts';
import { processes, statFields } from './processes.ts';
import { mountEnvironment } from './rootfs-base.ts';
import { resetRootfs } from './rootfs-reset.ts';
import { bindMountsOf, trialConfigOf } from './trial-config.ts';
import { rootfsOverlayOf, standInsFor, type TrialOverlay } from './trial-layout.ts';

/** What a trial is told. */
export interface Trial {
  /** The job's own bundle. */
  readonly jobBundle: string;
  /** The copy's, an empty directory. */
  readonly bundle: string;
  readonly cgroupsPath: string;
  /** The image's directory, for what was saved of the root file system. */
  readonly image: string;
  /** The socket that runc gives the copy's terminal to. */
  readonly consoleSocket: string;
  /** `runc restore`, with the environment that it is run in. */
  readonly command: readonly [file: string, args: readonly string[]];
  readonly env: NodeJS.ProcessEnv;
}

/** What a trial says when it is over: in one line of its standard output, as JSON. */
export type Verdict =
  | {
      /** How many processes were restored. */
      readonly restored: number;
    }
  /** Before the image was looked at; with its files; with its memory, of which CRIU's log tells more. */
  | { readonly failed: 'preparing' | 'files' | 'memory'; readonly message: string };

/**
 * Restores an image in the namespaces that this process is in: nobody else is there, and all that is mounted, listens or
 * was restored in them is gone when their first process ends. Every restored task stays stopped.
 */
export async function tryRestore(trial: Trial): Promise<Verdict> {
  let failed: 'preparing' | 'files' | 'memory' = 'preparing';
  try {
    // As on most hosts: CRIU restores a mount that followed one of the host's (a slave) from one that is shared.
    await execa('mount', ['--make-rshared', '/']);
    const { text, rootfs, terminal } = readContainerConfig(trial.jobBundle);
    const { bundle, cgroupsPath } = trial;
    const sources = bindMountsOf(text).map(({ source }) => source);
    const { overlays, standInFor } = standInsFor(sources, trial.jobBundle, bundle);
    writeFileSync(join(bundle, 'config.json'), trialConfigOf(text, { cgroupsPath, standInFor }), {
      mode: 0o600,
    });
    mkdirSync(join(bundle, 'rootfs'), { mode: 0o700 });
    const layers = rootfsOverlayOf(rootfs, bundle);
    for (const overlay of layers ? [layers, ...overlays] : overlays) await mountOverlay(overlay);
    await bringUpNetwork();
    if (terminal) await keepTerminal(trial.consoleSocket);
    failed = 'files';
    await resetRootfs(join(bundle, 'rootfs'), trial.image);
    failed = 'memory';
    const [file, args] = trial.command;
    const options = { stdio: 'ignore', env: trial.env, extendEnv: false, reject: false } as const;
    const { exitCode, signal } = await execa(file, args, options);
    if (exitCode !== 0) throw new Problem('trial', `runc ended with ${exitCode ?? signal}`);
    return { restored: await stoppedCopies() };
  } catch (error) {
    return { failed, message: reasonOf(error) };
  }
}

/**
 * An empty network, in which any address can be bound: of a network that the job shares with its host or its pod, a socket
 * that listens needs its address and port, and nothing else (ip-sysctl.rst, `ip_nonlocal_bind`).
 */
async function bringUpNetwork(): Promise<void> {
  await execa('ip', ['link', 'set', 'lo', 'up']);
  for (const family of ['ipv4', 'ipv6']) {
    try {
      writeFileSync(`/proc/sys/net/${family}/ip_nonlocal_bind`, '1');
    } catch {
      // A kernel without IPv6.
    }
  }
}

/**
 * Mounts an overlay that takes all that is written. Links of a few characters name its layers: mount(2) takes one page of
 * options, and paths may hold colons and commas. Where the kernel shows such a link, it is taken from the directory above the upper
 * layer's own (rootfs-location.ts).
 */
async function mountOverlay({ home, target, lowerdirs, layerOptions }: TrialOverlay): Promise<void> {
  const [upper, work] = [join(home, 'top/upper'), join(home, 'top/work')];
  for (const directory of [upper, work, target]) mkdirSync(directory, { recursive: true, mode: 0o700 });
  lowerdirs.forEach((directory, i) => {
    symlinkSync(directory, join(home, String(i)));
  });
  // What is seen of the top directory is the upper layer's.
  const { mode, uid, gid } = statSync(lowerdirs[0] ?? target);
  chownSync(upper, uid, gid);
  chmodSync(upper, mode & 0o7777);
  const layers = lowerdirs.map((_, i) => i).join(':');
  const options = [
    `lowerdir=${layers}`,
    `upperdir=${upper}`,
    `workdir=${work}`,
    'index=off',
    ...layerOptions,
  ];
  const words = ['-t', 'overlay', '-o', options.join(','), 'tardis-trial', target];
  const { exitCode, all } = await execa('mount', words, {
    cwd: home,
    all: true,
    reject: false,
    env: mountEnvironment,
  });
  if (exitCode === 0) return;
  throw new Problem('trial', `cannot mount a copy of ${lowerdirs[0]}: ${all}`);
}

/**
 * Listens on a socket, and reads nothing: the terminal that runc sends stays in it for as long as this process lives. One
 * that nobody holds hangs up, and the kernel continues the tasks that it belongs to (drivers/tty/tty_jobctrl.c,
 * tty_signal_session_leader).
 */
async function keepTerminal(path: string): Promise<void> {
  const server = createServer({ pauseOnConnect: true }, (socket) => held.push(socket));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
}

/** Kept from the garbage collector. */
const held: unknown[] = [];

/**
 * How many processes were restored. CRIU lets go of each with a SIGSTOP that waits for it: on a host under load it takes a
 * moment until the last one has met it, on its way out of the kernel.
 *
 * @throws Problem `trial` where there are none, or one is not stopped.
 */
async function stoppedCopies(): Promise<number> {
  const own = [1, process.pid, process.ppid];
  const copies = () => processes().filter((pid) => !own.includes(pid));
  const loose = () => copies().filter((pid) => !/^[TtZX]?$/.test(statFields(pid)[0] ?? ''));
  const deadline = Date.now() + patienceMs;
  while (loose().length > 0 && Date.now() < deadline) await delay(5);
  const [restored, running] = [copies().length, loose().length];
  if (restored > 0 && running === 0) return restored;
  throw new Problem(
    'trial',
    `CRIU restored ${restored} processes, of which ${running} are not stopped: expected some, and all stopped`,
  );
}
