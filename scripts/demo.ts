import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { ctrEngine } from '../test/support/engine-ctr.ts';
import { busyboxImage } from '../test/support/images.ts';
import { counting, enabled, ticksOf } from '../test/support/jobs.ts';
import { startStack } from '../test/support/stack.ts';

/*
 * A private containerd, an image made on the spot, a counting container that is checkpointed with exit and deleted,
 * and a new container that goes on counting. The stack takes itself off the host at the end, after a failure, and
 * on Ctrl-C (a janitor process outlives this one).
 */
const began = performance.now();
const step = (title: string): void => {
  const seconds = ((performance.now() - began) / 1000).toFixed(1).padStart(5);
  console.log(`\n${seconds} s  ${title}`);
};
const show = (text: string): void => console.log(text.trimEnd().replaceAll(/^/gm, '         '));

if (process.getuid?.() !== 0) {
  console.error('the demo starts containers: found an ordinary user, expected root; try: sudo npm run demo');
  process.exit(1);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    console.log(`\n${signal}: the demo takes everything off the host again`);
    process.exit(130);
  });
}

step('starting a private containerd');
const stack = await startStack({ rootJobsOnly: true });
let failed = false;
try {
  show(`in ${stack.dir}, with bin/tardis-runc as its runtime`);

  step('building an image from busybox-static');
  const image = await busyboxImage(stack);
  const job = { image, args: counting, env: enabled('demo') };

  step('starting the container "first" with TARDIS_ENABLE=1; it counts');
  const first = await ctrEngine(stack).run({ id: 'first', ...job });
  await first.waitForLine(/^tick 12$/);
  show(first.lines().join('  '));

  step('its state file (tardis inspect first)');
  const tardis = join(import.meta.dirname, '../bin/tardis');
  const inspect = (id: string) => execFileSync(tardis, ['inspect', id], { env: stack.env, encoding: 'utf8' });
  show(inspect('first'));

  step('containerd checkpoints it with exit: ctr tasks checkpoint --exit first');
  const { ms } = await first.checkpoint({ exit: true });
  await first.waitForExit();
  const last = ticksOf(first).at(-1) as number;
  show(`${ms.toFixed(0)} ms; the job is gone, its last number was ${last}`);

  step('the image');
  const place = join(stack.checkpointRoot, 'demo', 'current');
  show(filesIn(place));
  const { rootfs, host } = JSON.parse(readFileSync(join(place, 'tardis.json'), 'utf8'));
  show(`${rootfs.entries} changed files, dumped by CRIU ${host.criu} on Linux ${host.kernel}`);

  step('deleting the container "first"');
  await first.remove();

  step('starting a new container, "second", with the same checkpoint key');
  const second = await ctrEngine(stack).run({ id: 'second', ...job });
  await second.waitForLine(new RegExp(`^tick ${last + 12}$`));
  show(second.lines().join('  '));

  step('its state file (tardis inspect second)');
  show(inspect('second'));

  const numbers = ticksOf(second);
  const expected = Array.from(numbers, (_, i) => last + 1 + i);
  if (JSON.stringify(numbers) !== JSON.stringify(expected)) {
    throw new Error(
      `the numbers do not continue: expected ${expected.join(' ')}, found ${numbers.join(' ')}`,
    );
  }
  await second.remove();
  step(`the numbers continued at ${last + 1} without a gap or a repeat`);
} catch (error) {
  failed = true;
  console.error(`\nthe demo failed: ${error instanceof Error ? error.message : error}\n${stack.logs()}`);
} finally {
  await stack.stop();
}
step(failed ? 'cleaned up' : 'cleaned up: nothing is left on this host');
process.exit(failed ? 1 : 0);

/** A listing of an image with its sizes, CRIU's many files in one line. */
function filesIn(directory: string): string {
  const size = (path: string): string => `${statSync(path).size}`.padStart(9);
  const criu = readdirSync(join(directory, 'checkpoint'));
  const bytes = criu.reduce((sum, name) => sum + statSync(join(directory, 'checkpoint', name)).size, 0);
  return readdirSync(directory)
    .map((name) =>
      name === 'checkpoint'
        ? `${`${bytes}`.padStart(9)}  checkpoint/ (${criu.length} files of CRIU's: ${criu.slice(0, 3).join(', ')}, ...)`
        : `${size(join(directory, name))}  ${name}`,
    )
    .join('\n');
}
