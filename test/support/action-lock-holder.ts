import { spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { takeLock } from '../../src/actions/lock.ts';

/*
 * Another wrapper, for the tests of the lock: does what the lines on its standard input say, and says when it has.
 * Its arguments are those of takeLock.
 */
const [runDir = '', root = '', id = '', seconds = ''] = process.argv.slice(2);
const take = () => takeLock(runDir, root, id, { timeoutSeconds: Number(seconds) });
let lock: ReturnType<typeof take> | undefined;

const orders: Record<string, (argument: string) => void> = {
  take() {
    lock = take();
  },
  /** Leaves a program at work that holds the lock, as runc.ts does. */
  leave() {
    spawn('/bin/sh', ['-c', '(exec sleep 600 3>&-); exit $?'], {
      stdio: ['ignore', 'ignore', 'ignore', lock?.descriptor],
    });
  },
  release: () => lock?.release(),
  /** Releases the lock by and by. */
  later: (ms) => void setTimeout(() => lock?.release(), Number(ms)),
  discard: () => lock?.discard(),
  /** Makes a file that must not be there, and removes it, many times over. */
  meet(file) {
    for (let round = 0; round < 15; round++) {
      const mine = take();
      writeFileSync(file, '', { flag: 'wx' });
      rmSync(file);
      if (round % 3 === 0) mine.discard();
      else mine.release();
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [order = '', argument = ''] = line.split(' ');
  try {
    orders[order]?.(argument);
    process.stdout.write(`${order}\n`);
  } catch (error) {
    process.stdout.write(`${(error as { code?: string }).code}\n`);
  }
}
