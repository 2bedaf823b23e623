import { type Round, race, startRivals } from '../test/support/race.ts';

/*
 * `node scripts/race.ts [CREATES [ROUNDS]]`: so many containers of one job are created at once on two hosts, round
 * after round. Exits with 1 at the first round that has not exactly one restore, or in which another container does
 * anything but start from scratch. The stacks take themselves off the host, also after a failure and on Ctrl-C.
 */
const [count = 50, rounds = 100] = process.argv.slice(2).map(Number);
if (!(Number.isInteger(count) && count > 1 && Number.isInteger(rounds) && rounds > 0)) {
  console.error(
    `found "${process.argv.slice(2).join(' ')}", expected a number of creates (2 or more) and of rounds; try: node scripts/race.ts 50 100`,
  );
  process.exit(1);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const began = performance.now();
const rivals = await startRivals();
let failed = true;
try {
  const results = await race(rivals, {
    count,
    rounds,
    said: ({ winner, createMs }, n) =>
      console.log(
        `round ${n}: ${winner} of ${count} carried on; created in ${(createMs / 1000).toFixed(1)} s`,
      ),
  });
  console.log(summaryOf(results));
  failed = false;
} catch (error) {
  console.error(error instanceof Error ? error.message : error, ...rivals.map((stack) => stack.logs()));
} finally {
  for (const stack of rivals) await stack.stop();
}
process.exit(failed ? 1 : 0);

function summaryOf(results: Round[]): string {
  const winners = new Set(results.map(({ winner }) => winner)).size;
  const minutes = (performance.now() - began) / 60_000;
  return `${results.length} rounds of ${count} creates: one restore in each, ${winners} different winners; ${minutes.toFixed(1)} min`;
}
