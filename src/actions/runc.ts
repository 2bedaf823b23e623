import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { hangingIfOrdered } from './fault.ts';
import type { Host } from './host.ts';
import { endTrees } from './orphans.ts';
import { Problem, reasonOf } from './problem.ts';

/** runc ended with another status than 0, after it had spoken to the caller itself. */
export class RuncFailure extends Problem {
  readonly status: number;

  constructor(status: number, message: string) {
    super('runc', message);
    this.name = 'RuncFailure';
    this.status = status;
  }
}

/**
 * Node raises the soft limit of open files to the hard one when it starts (node.cc, PlatformInit), and a container
 * without limits of its own inherits runc's: the caller's limit is set again on the way.
 */
export function commandOf(
  host: Pick<Host, 'realRunc' | 'openFilesLimit'>,
  argv: readonly string[],
): [file: string, args: string[]] {
  if (host.openFilesLimit === undefined) return [host.realRunc, [...argv]];
  return ['/bin/sh', ['-c', `${setLimit}; exec "$@"`, host.openFilesLimit, host.realRunc, ...argv]];
}

/** Where it cannot be set again, runc runs all the same. */
const setLimit = 'ulimit -Sn "$0" 2>/dev/null';

/**
 * runc as a child of a shell that holds the wrapper's locks until runc has ended, also where the wrapper is killed
 * before. runc itself does not get the descriptors: its container, a hook's daemon would keep it for as long as they live.
 */
function heldCommandOf(host: Host, argv: readonly string[]): [file: string, args: string[]] {
  const { locks = [], openFilesLimit } = host;
  if (locks.length === 0) return hangingIfOrdered(...commandOf(host, argv));
  const command = hangingIfOrdered(host.realRunc, [...argv]).flat();
  const closed = locks.map((_, i) => `${firstLock + i}>&-`).join(' ');
  const limited = openFilesLimit === undefined ? '' : `${setLimit}; `;
  return ['/bin/sh', ['-c', `(${limited}exec "$@" ${closed}); exit $?`, openFilesLimit ?? 'sh', ...command]];
}

/** The locks' first descriptor in the shell. */
const firstLock = 3;

/** execa takes any open descriptor; its types know those up to 9 alone. */
const locksOf = ({ locks = [] }: Host): 3[] => locks.map((descriptor) => descriptor as 3);

/** A child that died by a signal has no status; the shim takes 0 or 1 and nothing from 128 on. */
const statusOf = (exitCode: number | undefined): number =>
  exitCode === undefined ? 1 : exitCode >= 128 ? 1 : exitCode;

/**
 * Runs runc as the caller would have: same argv, environment, standard streams, and working directory.
 *
 * @throws RuncFailure where it ends with another status than 0; runc has then spoken for itself.
 */
export async function runcForCaller(host: Host, argv: readonly string[]): Promise<void> {
  const [file, args] = heldCommandOf(host, argv);
  const [exitCode, how] = await endOf(file, args, host);
  if (exitCode !== 0) throw new RuncFailure(statusOf(exitCode), `runc ended with ${exitCode ?? how}`);
}

/** Nothing but streams that are handed on, in every call of a container: execa's 19 ms to load buy nothing here. */
async function endOf(
  file: string,
  args: string[],
  { env, locks = [] }: Host,
): Promise<[exitCode: number | undefined, how: string]> {
  try {
    const child = spawn(file, args, { stdio: ['inherit', 'inherit', 'inherit', ...locks], env });
    const [exitCode, signal] = (await once(child, 'exit')) as [number | null, string | null];
    return [exitCode ?? undefined, signal ?? ''];
  } catch (error) {
    return [undefined, reasonOf(error)];
  }
}

export interface OwnRuncOptions {
  /** Variables on top of the caller's environment. */
  readonly env?: NodeJS.ProcessEnv;
  /** Whether the container to be is given the wrapper's own standard streams. */
  readonly stdio?: 'inherit' | 'captured';
}

/**
 * Runs runc for Tardis itself.
 *
 * @returns what it printed (empty with inherited streams).
 * @throws Problem `runc` with runc's last words.
 */
export async function runcForTardis(
  host: Host,
  argv: readonly string[],
  { env = {}, stdio = 'captured' }: OwnRuncOptions = {},
): Promise<string> {
  const { execa } = await import('execa');
  const [file, args] = heldCommandOf(host, argv);
  const [input, output] =
    stdio === 'inherit' ? (['inherit', 'inherit'] as const) : (['ignore', 'pipe'] as const);
  const child = execa(file, args, {
    stdio: [input, output, output, ...locksOf(host)],
    all: true,
    env: { ...host.env, ...env },
    extendEnv: false,
    reject: false,
  });
  const result = await bounded(host, child.pid, argv, child);
  const words = typeof result.all === 'string' ? result.all.trim() : '';
  // A warning among the errors must not spoil the answer.
  if (result.exitCode === 0) return typeof result.stdout === 'string' ? result.stdout.trim() : '';
  const end = result.exitCode ?? result.signal ?? result.originalMessage;
  throw new Problem('runc', messageOf(words) || `runc ended with ${end}`);
}

/**
 * How long a runc of Tardis's own may take that no watch bounds: `state`, or the `delete` of a rollback or a recovery.
 * Its progress cannot be told from its CPU time: a `delete` waits up to ten seconds for the kernel to end the job.
 */
const secondsAlone = ({ freezeStallSeconds }: Host['config']): number => 2 * freezeStallSeconds;

/** Waits for a runc that the host's watch, or else a limit of its own, ends. */
async function bounded<Result>(
  { watch, config }: Host,
  pid: number | undefined,
  argv: readonly string[],
  work: Promise<Result>,
): Promise<Result> {
  if (watch) {
    watch.guardian?.work(pid);
    return work.finally(() => watch.guardian?.work(undefined));
  }
  const seconds = secondsAlone(config);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      if (pid !== undefined) endTrees([pid]);
      reject(
        new Problem(
          'runc',
          `runc gave no answer for ${seconds} s (twice freezeStallSeconds) and was killed: ${argv.join(' ')}`,
        ),
      );
    }, seconds * 1000);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/** The readable part of runc's error output, text or JSON: `level=error msg="..."`. */
export function messageOf(words: string): string {
  const messages = words.split('\n').flatMap((line) => {
    try {
      if (line.startsWith('{')) return [(JSON.parse(line) as { msg?: string }).msg ?? ''];
      const quoted = /\bmsg=("(?:[^"\\]|\\.)*")/.exec(line)?.[1];
      if (quoted) return [JSON.parse(quoted) as string];
    } catch {
      // Not runc's form after all: shown as it is.
    }
    const word = /\blevel=\w+ msg=([^"\s]+)/.exec(line)?.[1];
    if (word) return [word];
    return [line];
  });
  return messages.filter(Boolean).at(-1) ?? '';
}
