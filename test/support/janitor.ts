/**
 * A process of its own that sweeps a stack away once its standard input ends. The test process holds the other end, so
 * this happens after stop(), after a crash, after Ctrl-C and after SIGKILL alike.
 *
 *   node janitor.ts /tmp/td-Xy12ab
 */
import { sweep } from './sweep.ts';

const dir = process.argv[2];
if (dir === undefined) throw new Error('usage: janitor.ts DIRECTORY');
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
process.stdin.resume();
process.stdin.on('end', () => {
  sweep(dir).catch((thrown: unknown) => {
    console.error(thrown instanceof Error ? thrown.message : thrown);
    process.exitCode = 1;
  });
});
