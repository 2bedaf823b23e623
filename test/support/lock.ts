import { spawn } from 'node:child_process';
import { once } from 'node:events';

/**
 * Runs `work` while holding a kernel lock on `file`, so that parallel test runs build a cached thing once. The lock
 * is held by flock(1) and therefore ends with this process however it ends.
 */
export async function withLock<T>(file: string, work: () => Promise<T>): Promise<T> {
  const holder = spawn('flock', [file, 'sh', '-c', 'echo locked; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(holder, 'close');
  const first = await Promise.race([once(holder.stdout, 'data'), ended.then(() => undefined)]);
  if (first === undefined) throw new Error(`could not lock ${file}: flock ended with ${holder.exitCode}`);
  try {
    return await work();
  } finally {
    holder.stdin.end();
    await ended;
  }
}
