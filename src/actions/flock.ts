import { spawn, spawnSync } from 'node:child_process';
import { Problem } from './problem.ts';

/*
 * flock(2) locks belong to the open file description: util-linux's `flock` locks the descriptor that it is handed and
 * ends, and the lock stays ours until we close it or die.
 */

export type LockAnswer = 'locked' | 'busy';

const conflict = 75;

/** @param timeoutSeconds 0 only tries, undefined waits for as long as it takes. */
function argsFor(timeoutSeconds: number | undefined): string[] {
  const wait =
    timeoutSeconds === undefined
      ? []
      : timeoutSeconds === 0
        ? ['--nonblock']
        : ['--timeout', String(timeoutSeconds)];
  return ['--exclusive', ...wait, '--conflict-exit-code', String(conflict), '3'];
}

const stdioWith = (fd: number) => ['ignore', 'ignore', 'ignore', fd] as const;

function answerOf(path: string, status: number | string | null, error?: Error): LockAnswer {
  if (status === 0) return 'locked';
  if (status === conflict) return 'busy';
  throw new Problem('lock', `cannot lock ${path}: ${error?.message ?? `flock ended with ${status}`}`);
}

/**
 * Asks for the kernel's lock on an open file, and does nothing else meanwhile.
 *
 * @param path what the descriptor is called in a message.
 * @param timeoutSeconds 0 only tries.
 * @throws Problem `lock` where locking itself fails.
 */
export function lockDescriptor(fd: number, path: string, timeoutSeconds: number): LockAnswer {
  const result = spawnSync('flock', argsFor(timeoutSeconds), { stdio: [...stdioWith(fd)] });
  return answerOf(path, result.status, result.error);
}

/** A lock that is being waited for. */
export interface AwaitedLock {
  /** @throws Problem `lock` where locking itself fails, or was given up. */
  readonly answer: Promise<LockAnswer>;
  /** Waits no longer. A lock that has come by then goes with its descriptor, as ever. */
  giveUp(): void;
}

/** As {@link lockDescriptor}, beside other work. @param timeoutSeconds undefined: for as long as it takes. */
export function awaitLock(fd: number, path: string, timeoutSeconds?: number): AwaitedLock {
  const child = spawn('flock', argsFor(timeoutSeconds), { stdio: [...stdioWith(fd)] });
  const answer = new Promise<LockAnswer>((resolve, reject) => {
    const settle = (status: number | string | null, error?: Error) => {
      try {
        resolve(answerOf(path, status, error));
      } catch (problem) {
        reject(problem);
      }
    };
    child.once('error', (error) => settle(null, error));
    child.once('exit', (status, signal) => settle(status ?? signal));
  });
  return { answer, giveUp: () => void child.kill('SIGKILL') };
}
