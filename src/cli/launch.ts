import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { mostLanes } from '../actions/digest-lanes.ts';
import type { Host } from '../actions/host.ts';
import { defaultConfig, type HostConfig, loadHostConfig } from '../actions/host-config.ts';
import { openLog } from '../actions/log.ts';
import { reasonOf } from '../actions/problem.ts';
import { commandOf } from '../actions/runc.ts';

/** What the launcher (bin/tardis-runc) says in its environment, and the environment that the caller gave it. */
export interface Launch {
  readonly realRunc: string;
  readonly openFilesLimit: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  /** Where the launcher looked for the container, also if the settings cannot be read. */
  readonly runDir: string | undefined;
  /** Where Tardis is installed. */
  readonly home: string | undefined;
}

const prefix = 'TARDIS_LAUNCH';

/** Tells the launcher's words from the caller's environment, and gives the caller's NODE_ variables back. */
export function readLaunch(environment: NodeJS.ProcessEnv): Launch {
  const env: NodeJS.ProcessEnv = {};
  for (const [name, value] of Object.entries(environment)) {
    if (!name.startsWith(prefix)) env[name] = value;
    else if (name.startsWith(`${prefix}_NODE_`)) env[name.slice(prefix.length + 1)] = value;
  }
  return {
    realRunc: environment.TARDIS_LAUNCH_RUNC ?? 'runc',
    openFilesLimit: environment.TARDIS_LAUNCH_NOFILE,
    home: environment.TARDIS_LAUNCH_HOME,
    runDir: environment.TARDIS_LAUNCH_RUN_DIR,
    env,
  };
}

/** The host's settings, or the defaults and why the settings cannot be used. */
export interface Settings {
  readonly config: HostConfig;
  readonly warnings: readonly string[];
  readonly broken?: string;
}

/** Reads the host's settings; where they cannot be used, the caller is only to be given the real runc. */
export function readSettings({ env, runDir }: Launch): Settings {
  try {
    return loadHostConfig(env);
  } catch (error) {
    const config = { ...defaultConfig(env), ...(runDir ? { runDir } : {}) };
    return { config, warnings: [], broken: reasonOf(error) };
  }
}

/**
 * Lets libuv's pool have a thread for each core, which then digest an image together. Counts only before anything has
 * used the pool; runc is given the caller's environment, without it.
 */
export function useAllCores(): void {
  process.env.UV_THREADPOOL_SIZE ??= String(Math.min(mostLanes, Math.max(4, availableParallelism())));
}

/** Opens the host's log, and with it everything that the actions need. */
export function openHost(
  { realRunc, openFilesLimit, env, home }: Launch,
  settings: Settings,
  about: object,
): Host {
  const { config, warnings } = settings;
  const log = openLog(config.logFile, { ...about });
  for (const warning of warnings) log.warn(warning);
  // One that the settings name and that is not there: the launcher has found another, and has said so.
  const own = config.realRunc !== undefined && isProgram(config.realRunc) ? config.realRunc : realRunc;
  return { config, realRunc: own, env, openFilesLimit, home, log };
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * Becomes the real runc: the same process, argv, environment, and descriptors. Does not return.
 */
export function becomeRunc(launch: Launch, argv: readonly string[]): never {
  const [file, args] = commandOf(launch, argv);
  letStreamsBlock();
  const execve = process.execve;
  if (!execve) throw new Error('this Node has no process.execve; expected Node 24');
  const environment = Object.fromEntries(
    Object.entries(launch.env).filter(([, value]) => value !== undefined),
  );
  return execve.call(process, file, [file, ...args], environment as Record<string, string>);
}

/**
 * Node opens the standard streams as soon as some module looks at one (importing `node:util` is enough), and a pipe
 * that it opens becomes non-blocking for everyone who shares it: the job that is to have it would see EAGAIN. libuv
 * makes the streams blocking again in every child that inherits them (uv__process_child_init); so a child that does
 * nothing mends them.
 */
function letStreamsBlock(): void {
  if ([0, 1, 2].some(mayBeNonBlocking)) spawnSync('/bin/true', { stdio: 'inherit' });
}

/** O_NONBLOCK, as proc_pid_fdinfo(5) shows it. */
const nonBlocking = 0o4000;

function mayBeNonBlocking(descriptor: number): boolean {
  try {
    const [, flags = ''] =
      /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8')) ?? [];
    return flags === '' || (Number.parseInt(flags, 8) & nonBlocking) !== 0;
  } catch {
    return true;
  }
}
