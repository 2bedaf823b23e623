import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { type Host, searchPathOf } from './host.ts';
import { Problem, reasonOf } from './problem.ts';
import { processStartTime } from './runc-state.ts';
import { shortDigest } from './short-digest.ts';

/**
 * What is made and removed again by way of a question. It is a change, for only that needs the server: names may be cached, and a
 * file system that is frozen (fsfreeze(8)) can still be read. It is an empty directory, named the same for all, so it does
 * not matter whose it is.
 */
const probeName = '.tardis-asks';

/** What is needed of a host to ask. */
export type Asking = Pick<Host, 'config' | 'env'> & Partial<Pick<Host, 'log'>>;

/** How long an answer is good for in one process, for whoever asks once more right away. */
const rememberedMs = 500;
const answered = new WeakMap<Asking['config'], Map<string, number>>();

/**
 * Whether the place of a job's images answers within `shareTimeoutSeconds`. A refusal (there is no such place, a
 * read-only or a full disk) is an answer, too.
 *
 * A file server that is gone keeps whoever asks it asleep in the kernel, where no signal helps (NFS with `hard`, FUSE). So
 * a process of its own asks, and is left behind if it gets no answer: while it hangs, everybody else has theirs from that
 * at once, and what hangs on a host does not grow with its containers. It ends when the server is back.
 *
 * Costs two short programs where the place answers.
 *
 * @param mayRemember whether an answer of this very moment will do.
 */
export async function answers(host: Asking, imageRoot: string, mayRemember = false): Promise<boolean> {
  const remembered = answered.get(host.config) ?? new Map<string, number>();
  answered.set(host.config, remembered);
  const since = performance.now() - (remembered.get(imageRoot) ?? Number.NEGATIVE_INFINITY);
  if (mayRemember && since < rememberedMs) return true;
  const mark = markOf(host, 'unreachable', imageRoot);
  if (isHanging(mark)) return false;
  const path = join(imageRoot, probeName);
  const deadline = performance.now() + host.config.shareTimeoutSeconds * 1000;
  for (const words of [
    ['mkdir', '-m', '700', path],
    ['rmdir', path],
  ] as const) {
    const left = await leftBehind(host, words, deadline - performance.now());
    if (left === undefined) continue;
    note(host, mark, left);
    return false;
  }
  remembered.set(imageRoot, performance.now());
  return true;
}

/** Runs a program for so long at most; its pid where it has not ended by then. One that cannot be started says nothing. */
export async function leftBehind(
  host: Asking,
  [file, ...args]: readonly [string, ...string[]],
  ms: number,
): Promise<number | undefined> {
  // A Ctrl-C at the wrapper is none at it, and it must hold nobody's working directory or streams.
  const env = { PATH: searchPathOf(host) };
  const child = spawn(file, args, { stdio: 'ignore', detached: true, cwd: '/', env });
  let timer: NodeJS.Timeout | undefined;
  const ended = new Promise<undefined>((resolve) => {
    child.once('exit', () => resolve(undefined));
    child.once('error', () => resolve(undefined));
  });
  const late = new Promise<number | undefined>((resolve) => {
    timer = setTimeout(() => resolve(child.pid), ms);
  });
  return Promise.race([ended, late]).finally(() => {
    clearTimeout(timer);
    child.unref();
  });
}

/**
 * Makes sure that the place of a job's images answers.
 *
 * @throws Problem `images-unreachable`
 */
export async function demandAnswer(host: Asking, imageRoot: string, mayRemember = false): Promise<void> {
  if (await answers(host, imageRoot, mayRemember)) return;
  throw new Problem(
    'images-unreachable',
    `${imageRoot} did not answer within ${host.config.shareTimeoutSeconds} s (shareTimeoutSeconds); look after its file ` +
      'server or its mount',
  );
}

/** A file of the run directory that is about a place of images. */
export const markOf = ({ config }: Pick<Asking, 'config'>, about: string, imageRoot: string): string =>
  join(config.runDir, about, shortDigest(imageRoot));

/** Whether somebody who asked before waits for an answer still. */
function isHanging(mark: string): boolean {
  try {
    const [pid, startTime] = fs.readFileSync(mark, 'utf8').split(' ').map(Number);
    if (pid && startTime && processStartTime(pid) === startTime) return true;
    fs.rmSync(mark, { force: true });
  } catch {
    // Nobody hangs, or the run directory cannot be read: then it is asked.
  }
  return false;
}

function note({ config, log }: Asking, mark: string, pid: number): void {
  const draft = `${mark}.${process.pid}`;
  try {
    fs.mkdirSync(join(config.runDir, 'unreachable'), { recursive: true, mode: 0o700 });
    fs.writeFileSync(draft, `${pid} ${processStartTime(pid) ?? 0}\n`, { mode: 0o600 });
    fs.renameSync(draft, mark);
  } catch (error) {
    log?.debug({ reason: reasonOf(error) }, 'cannot note that the place of the images does not answer');
  }
}
