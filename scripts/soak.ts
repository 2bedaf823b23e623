import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { busyboxImage } from '../test/support/images.ts';
import { type Soaked, soak, stepCosts } from '../test/support/soak.ts';
import { startStack } from '../test/support/stack.ts';

/*
 * As many counting containers as are asked for (200) on a private containerd: created together, checkpointed together
 * with exit, deleted together, restored together. Says what that took, and exits with 1 and a list where anything was
 * lost. The stack takes itself off the host at the end, after a failure, and on Ctrl-C (a janitor process outlives
 * this one).
 */
const began = performance.now();
const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`.padStart(8);
const step = (title: string): void => console.log(`${seconds(performance.now() - began)}  ${title}`);
const fail = (reason: string): never => {
  console.error(reason);
  process.exit(1);
};

const count = Number(process.argv[2] ?? 200);
if (!Number.isInteger(count) || count < 1) {
  fail(`how many containers? found "${process.argv[2]}", expected a number from 1; try: npm run soak -- 24`);
}
if (process.getuid?.() !== 0) {
  fail('the soak starts containers: found an ordinary user, expected root; try: sudo npm run soak');
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    console.log(`\n${signal}: the soak takes everything off the host again`);
    process.exit(130);
  });
}

step(`${count} containers on a private containerd`);
// TARDIS_MAX_DUMPS=4 npm run soak -- 40: how the bounds for this host are chosen.
const bounds = Object.entries(process.env).filter(([name]) => name.startsWith('TARDIS_MAX_'));
const env = Object.fromEntries(bounds) as Record<string, string>;
const stack = await startStack({ rootJobsOnly: true, env });
let lost = true;
try {
  step(`it is in ${stack.dir}, with bin/tardis-runc as its runtime`);
  const image = await busyboxImage(stack);
  const soaked = await soak(stack, {
    image,
    count,
    said: ({ name, ms, slowest }) =>
      step(`${name.padEnd(11)}${seconds(ms)}, the slowest ${slowest.id} after ${seconds(slowest.ms).trim()}`),
  });
  report(soaked);
  lost = soaked.lost.length > 0;
} catch (error) {
  console.error(`\nthe soak failed: ${error instanceof Error ? error.message : error}\n${stack.logs()}`);
} finally {
  await stack.stop();
}
step('cleaned up: nothing is left on this host');
process.exit(lost ? 1 : 0);

function report({ atOnce, load, lost }: Soaked): void {
  step('where the time of the wrappers went, all containers together:');
  for (const { step: name, times, totalMs, mostMs } of stepCosts(stack.logFile).slice(0, 12)) {
    console.log(
      `          ${name.padEnd(40)} ${`${times}`.padStart(5)} times ${seconds(totalMs)}, the longest ${seconds(mostMs)}`,
    );
  }
  step(`at once, at most: ${atOnce.dumps} dumps, ${atOnce.restores} restores, ${load.wrappers} wrappers`);
  step(
    `memory: ${load.wrapperRssMiB} MiB resident in wrappers, ${load.availableMiB} MiB available at the lowest`,
  );
  const warnings = readFileSync(stack.logFile, 'utf8')
    .split('\n')
    .filter((line) => /"level":"(warn|error)"/.test(line));
  step(`${warnings.length} warnings in the log${warnings.length > 0 ? `, such as ${warnings[0]}` : ''}`);
  step(lost.length === 0 ? 'nothing was lost' : `${lost.length} of ${count} were lost:`);
  for (const { id, phase, reason } of lost) console.log(`          ${id} (${phase}): ${reason}`);
}
