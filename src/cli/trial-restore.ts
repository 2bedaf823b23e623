import { readFileSync, writeSync } from 'node:fs';
import { reasonOf } from '../actions/problem.ts';
import { type Trial, tryRestore, type Verdict } from '../actions/trial-restore.ts';

/**
 * The program that src/actions/verify-image.ts runs in namespaces of its own, with the path of what it is told. It says
 * its verdict and waits: its copies end with it, when their first process does.
 */
async function main([told = '']: readonly string[]): Promise<Verdict> {
  return tryRestore(JSON.parse(readFileSync(told, 'utf8')) as Trial);
}

main(process.argv.slice(2))
  .catch((error): Verdict => ({ failed: 'preparing', message: reasonOf(error) }))
  .then((verdict) => writeSync(1, `${JSON.stringify(verdict)}\n`));
setInterval(() => {}, 2 ** 30);
