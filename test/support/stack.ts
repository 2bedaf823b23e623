import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, delimiter, join } from 'node:path';
import { criuForSandbox } from './criu-for-sandbox.ts';
import { hostPath, projectRoot, whichOrThrow } from './paths.ts';
import { type Ran, type RunOptions, run } from './run.ts';
import { Hopeless, waitFor } from './wait.ts';

export type StackOptions = {
  /** Start a dockerd beside containerd. */
  docker?: boolean;
  /** More flags for the dockerd. */
  dockerdFlags?: string[];
  /** The OCI runtime under test; default: this checkout's bin/tardis-runc. */
  runtime?: string;
  /** Directories to put before the host's PATH. */
  pathPrefix?: string[];
  /** More environment for the daemons, and so for the shims and the runtime. */
  env?: Record<string, string>;
  /** Keys of the host config (tardis.json) to add or replace; undefined leaves one out. */
  config?: Record<string, unknown>;
  /** Only jobs of root are run: CRIU needs no help then, even on a machine whose root lacks CAP_SYS_RESOURCE. */
  rootJobsOnly?: boolean;
  /** Directories of the stack to keep on a tmpfs of a given size, e.g. `{ checkpoints: '16m' }` for a full disk. */
  tmpfs?: Record<string, string>;
};

/** One of a stack's daemons, to be lost and had again by a test. What it has left when the stack stops is swept. */
export type Daemon = {
  /** `kill -9`; it is gone afterwards, and what it has started is not. */
  kill(): Promise<void>;
  /** Starts it as it was, unless it is there; it answers afterwards. */
  start(): Promise<void>;
};

/** A containerd, and perhaps a dockerd, that belong to one test file alone. */
export type Stack = {
  dir: string;
  /** containerd's socket. */
  socket: string;
  /** containerd's namespace for `ctr`; runc's state is in /run/containerd/runc/<namespace>. */
  namespace: string;
  /** The environment of the daemons. */
  env: Record<string, string>;
  runtime: string;
  /** The first directory of the daemons' PATH, for fake executables; empty at first. */
  binDir: string;
  /** The host config file, and the places it names. */
  configFile: string;
  checkpointRoot: string;
  logFile: string;
  runDir: string;
  ctr(args: string[], options?: RunOptions): Promise<Ran>;
  docker(args: string[], options?: RunOptions): Promise<Ran>;
  /** Has this stack a dockerd? */
  hasDocker: boolean;
  containerd: Daemon;
  dockerd: Daemon;
  /** The ends of the daemons' and Tardis's own logs, to print when a test fails. */
  logs(): string;
  /** Takes everything off the host again. */
  stop(): Promise<void>;
};

/** Starts a private stack; `await stack.stop()` in afterAll. */
export async function startStack(options: StackOptions = {}): Promise<Stack> {
  // Short, because a unix socket's path has at most 108 bytes.
  const dir = mkdtempSync(join(tmpdir(), 'td-'));
  const dismiss = employJanitor(dir);
  try {
    return await furnish(dir, options, dismiss);
  } catch (thrown) {
    const logs = logsOf(dir);
    await dismiss();
    throw new Error(`could not start a stack: ${thrown instanceof Error ? thrown.message : thrown}\n${logs}`);
  }
}

async function furnish(dir: string, options: StackOptions, dismiss: () => Promise<void>): Promise<Stack> {
  const name = basename(dir);
  const socket = join(dir, 'c.sock');
  const runtime = options.runtime ?? join(projectRoot, 'bin/tardis-runc');
  const places = layOut(dir);
  for (const [path, size] of Object.entries(options.tmpfs ?? {})) {
    mkdirSync(join(dir, path), { recursive: true });
    await run('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=0700`, 'tmpfs', join(dir, path)]);
  }

  const config = {
    realRunc: whichOrThrow('runc'),
    checkpointRoot: places.checkpointRoot,
    allowedRoots: [dir],
    logFile: places.logFile,
    runDir: places.runDir,
    scratchDir: join(dir, 'scratch'),
    ...options.config,
  };
  writeFileSync(places.configFile, `${JSON.stringify(config, null, 2)}\n`);

  // Only what a daemon would have: this process carries vitest's and npm's variables too.
  const env: Record<string, string> = {
    PATH: [
      places.binDir,
      ...(options.pathPrefix ?? []),
      ...(options.rootJobsOnly ? [] : await criuForSandbox()),
      hostPath(),
    ].join(delimiter),
    HOME: join(dir, 'home'),
    DOCKER_CONFIG: join(dir, 'home'),
    TARDIS_CONFIG: places.configFile,
    ...options.env,
  };
  const ctr = (args: string[], runOptions?: RunOptions) =>
    run('ctr', ['--address', socket, '--namespace', name, ...args], { env, ...runOptions });
  const dockerHost = `unix://${join(dir, 'd.sock')}`;
  const docker = (args: string[], runOptions?: RunOptions) =>
    run('docker', ['--host', dockerHost, ...args], { env, ...runOptions });

  writeFileSync(join(dir, 'containerd.toml'), containerdConfig(dir, socket));
  const containerd = daemon(
    () => launch(dir, 'containerd', ['--config', join(dir, 'containerd.toml')], env),
    (child) => answers(child, 'containerd', () => ctr(['version'])),
  );
  const flags = [...dockerdFlags(dir, name, socket, dockerHost, runtime), ...(options.dockerdFlags ?? [])];
  const dockerd = daemon(
    () => launch(dir, 'dockerd', flags, env),
    (child) => answers(child, 'dockerd', () => docker(['version'])),
  );
  await containerd.start();
  if (options.docker) await dockerd.start();

  const stack: Stack = {
    dir,
    socket,
    namespace: name,
    env,
    runtime,
    ...places,
    hasDocker: options.docker ?? false,
    containerd,
    dockerd,
    ctr,
    docker,
    logs: () => logsOf(dir),
    async stop() {
      await removeContainers(stack);
      await dismiss();
    },
  };
  return stack;
}

function layOut(dir: string) {
  for (const made of ['home', 'bin', 'checkpoints', 'run']) mkdirSync(join(dir, made), { mode: 0o700 });
  return {
    binDir: join(dir, 'bin'),
    configFile: join(dir, 'tardis.json'),
    checkpointRoot: join(dir, 'checkpoints'),
    logFile: join(dir, 'tardis.jsonl'),
    runDir: join(dir, 'run'),
  };
}

function containerdConfig(dir: string, socket: string): string {
  return `version = 2
root = ${JSON.stringify(join(dir, 'root'))}
state = ${JSON.stringify(join(dir, 'state'))}
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = ${JSON.stringify(socket)}
[plugins."io.containerd.internal.v1.opt"]
  path = ${JSON.stringify(join(dir, 'opt'))}
`;
}

function dockerdFlags(dir: string, name: string, socket: string, host: string, runtime: string): string[] {
  // No configuration of the host's own Docker may reach this one.
  writeFileSync(join(dir, 'daemon.json'), '{}\n');
  return [
    ...['--config-file', join(dir, 'daemon.json'), '--host', host, '--containerd', socket],
    ...['--containerd-namespace', `${name}-docker`, '--containerd-plugins-namespace', `${name}-plugins`],
    ...[
      '--data-root',
      join(dir, 'docker'),
      '--exec-root',
      join(dir, 'exec'),
      '--pidfile',
      join(dir, 'dockerd.pid'),
    ],
    ...['--cgroup-parent', `/${name}-docker`, '--experimental', '--add-runtime', `tardis=${runtime}`],
    ...['--iptables=false', '--ip6tables=false', '--bridge=none', '--storage-driver', 'overlay2'],
  ];
}

function daemon(begin: () => ChildProcess, answers: (child: ChildProcess) => Promise<void>): Daemon {
  let running: ChildProcess | undefined;
  return {
    async kill() {
      if (!running) return;
      const ended = once(running, 'exit');
      running.kill('SIGKILL');
      running = undefined;
      await ended;
    },
    async start() {
      if (running) return;
      running = begin();
      await answers(running);
    },
  };
}

/** Starts a daemon in a session of its own, so that Ctrl-C reaches it only through the janitor. */
function launch(dir: string, program: string, args: string[], env: Record<string, string>): ChildProcess {
  const log = openSync(join(dir, `${program}.log`), 'a');
  const child = spawn(program, args, { env, cwd: dir, detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  child.on('error', () => {}); // Reported by `answers`, as an exit is.
  child.unref();
  return child;
}

async function answers(child: ChildProcess, name: string, ask: () => Promise<unknown>): Promise<void> {
  await waitFor(
    `${name} to answer`,
    async () => {
      if (child.pid === undefined) throw new Hopeless(`${name} could not be started`);
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Hopeless(`${name} ended with ${child.exitCode ?? child.signalCode}`);
      }
      await ask();
      return true;
    },
    { timeoutMs: 60_000 },
  );
}

/** The polite way first: it takes the runtime through its own delete. What it misses, the janitor sweeps. */
async function removeContainers({ ctr, docker, hasDocker }: Stack): Promise<void> {
  const options = { mayFail: true, timeoutMs: 30_000 };
  const listed = async (ran: Promise<Ran>) => (await ran).stdout.split('\n').filter((line) => line !== '');
  if (hasDocker) {
    const containers = await listed(docker(['ps', '--all', '--quiet'], options));
    if (containers.length > 0) await docker(['rm', '--force', '--volumes', ...containers], options);
    const networks = await listed(docker(['network', 'ls', '--quiet', '--filter', 'type=custom'], options));
    if (networks.length > 0) await docker(['network', 'rm', ...networks], options);
  }
  for (const task of await listed(ctr(['tasks', 'list', '--quiet'], options))) {
    await ctr(['tasks', 'delete', '--force', task], options);
  }
  for (const container of await listed(ctr(['containers', 'list', '--quiet'], options))) {
    await ctr(['containers', 'delete', container], options);
  }
}

/** Starts the janitor; the function returned lets it sweep, and waits until it has. */
function employJanitor(dir: string): () => Promise<void> {
  const janitor = spawn(process.execPath, [join(import.meta.dirname, 'janitor.ts'), dir], {
    detached: true,
    stdio: ['pipe', 'ignore', 'pipe'],
    // vitest's NODE_OPTIONS and the like are not for it.
    env: { PATH: hostPath() },
  });
  let said = '';
  janitor.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const ended = once(janitor, 'close');
  janitor.unref();
  return async () => {
    janitor.ref();
    janitor.stdin.end();
    const [status] = await ended;
    if (status !== 0) throw new Error(`the janitor of ${dir} ended with ${status}: ${said}`);
  };
}

function logsOf(dir: string): string {
  return ['containerd.log', 'dockerd.log', 'tardis.jsonl']
    .map((file) => {
      try {
        return `--- ${file}\n${readFileSync(join(dir, file), 'utf8').split('\n').slice(-40).join('\n')}`;
      } catch {
        return `--- ${file}: none`;
      }
    })
    .join('\n');
}
