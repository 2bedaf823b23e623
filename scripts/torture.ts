import { parseArgs } from 'node:util';
import { type Tally, torture, type Violation } from '../test/support/torture.ts';

/*
 * `node scripts/torture.ts [--minutes 20] [--seed N] [--jobs 6]`: jobs on two hosts with one share, each with an oracle of
 * its own, in rounds of a minute and a half: created, checkpointed, paused, signalled, started again and deleted in any
 * order, while the share is frozen or full, and wrappers, runcs, CRIUs, guardians, shims and engines are killed. At the end of
 * a round every job is carried on once more on both hosts, and nothing may be left.
 *
 * Prints what is not as it must be, with the seed of its round: `--seed` of that repeats its schedule, though not how its
 * steps meet each other. Exits with 1 if there was anything. The stacks take themselves off the host, on Ctrl-C, too.
 */
const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '20' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 1e6)) },
    jobs: { type: 'string', default: '6' },
  },
});
const [minutes, seed, jobs] = [values.minutes, values.seed, values.jobs].map(Number) as [
  number,
  number,
  number,
];
if (!(minutes > 0 && Number.isInteger(seed) && Number.isInteger(jobs) && jobs > 0)) {
  console.error(
    `found "${process.argv.slice(2).join(' ')}", expected minutes, a seed and a number of jobs; try: node scripts/torture.ts --minutes 20 --seed 1 --jobs 6`,
  );
  process.exit(1);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const began = performance.now();
const clock = (): string => `${((performance.now() - began) / 60_000).toFixed(1)} min`;
let violations = 0;
console.log(`seed ${seed}, ${jobs} jobs, ${minutes} min`);
const tally = await torture({ seed, minutes, jobs, violated, said });
console.log(summaryOf(tally));
process.exit(violations > 0 ? 1 : 0);

function violated({ seed: roundSeed, lane, step, doing, words, logs }: Violation): void {
  violations += 1;
  console.log(
    `\nVIOLATION ${violations}, seed ${roundSeed}, ${lane}, step ${step} ${doing}:\n${words}\n${logs}\n`,
  );
}

function said({ rounds, restores, commits }: Tally, roundSeed: number): void {
  console.log(
    `${clock()}: round ${rounds} (seed ${roundSeed}); so far ${restores} restores, ${commits} commits, ${violations} violations`,
  );
}

function summaryOf({ rounds, steps, weather, restores, commits, fresh }: Tally): string {
  const list = (counts: Map<string, number>): string =>
    [...counts]
      .toSorted(([, one], [, other]) => other - one)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ');
  return [
    `${clock()}, ${rounds} rounds from seed ${seed}: ${violations === 0 ? 'nothing was wrong' : `${violations} violations`}`,
    `steps: ${list(steps)}`,
    `weather: ${list(weather)}`,
    `${restores} restores, ${commits} commits; from scratch: ${list(fresh)}`,
  ].join('\n');
}
