import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../test/support/paths.ts';
import { thisMachine } from './machine.ts';
import type { Result, Suite } from './suite.ts';
import { checkpoint } from './suites/checkpoint.ts';
import { compression } from './suites/compression.ts';
import { create } from './suites/create.ts';
import { density } from './suites/density.ts';
import { engines } from './suites/engines.ts';
import { limits } from './suites/limits.ts';
import { passThrough } from './suites/pass-through.ts';
import { restore } from './suites/restore.ts';
import { rootfs } from './suites/rootfs.ts';
import { tableOf } from './table.ts';

/*
 * `npm run bench [-- SUITE...]`: measures Tardis beside runc on this machine, prints each suite's table, and keeps its
 * numbers in docs/performance/<suite>.json, from which docs/performance.md is made (bench/document.ts).
 *
 * BENCH_RUNS changes how often each way is measured (20).
 */
const suites: Record<string, Suite> = {
  'pass-through': passThrough,
  create,
  checkpoint,
  restore,
  rootfs,
  compression,
  density,
  engines,
  limits,
};

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !Object.hasOwn(suites, name));
if (unknown.length > 0)
  stop(`found ${unknown.join(', ')}, expected some of ${Object.keys(suites).join(', ')}`);
if (process.getuid?.() !== 0)
  stop('the benchmarks start containers: found an ordinary user, expected root; try: sudo npm run bench');
const runs = Number(process.env.BENCH_RUNS ?? 20);
if (!Number.isInteger(runs) || runs < 1)
  stop(`found BENCH_RUNS=${process.env.BENCH_RUNS}, expected a number from 1`);
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const machine = await thisMachine();
const directory = join(projectRoot, 'docs/performance');
mkdirSync(directory, { recursive: true });
for (const [suite, measure] of Object.entries(suites)) {
  if (wanted.length > 0 && !wanted.includes(suite)) continue;
  console.log(`\n==> ${suite}`);
  const said = (line: string): void => console.log(`    ${line}`);
  const result: Result = { suite, runs, machine, ...(await measure({ runs, said })) };
  // A short look must not replace numbers that stand in the documents.
  if (runs >= 20) writeFileSync(join(directory, `${suite}.json`), `${JSON.stringify(result, null, 1)}\n`);
  console.log(tableOf(result.rows));
}

function stop(reason: string): never {
  console.error(reason);
  process.exit(1);
}
