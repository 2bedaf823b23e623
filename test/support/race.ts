import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readState, stateFileOf } from '../../src/actions/state-file.ts';
import { type DirectRunc, directRunc } from './direct-runc.ts';
import { imageNames } from './image-names.ts';
import { counting, enabled, ticksOf } from './jobs.ts';
import { completeLines, waitForLine } from './lines.ts';
import { type Stack, startStack } from './stack.ts';

/** Two hosts as Tardis knows them: a `hostId`, a run directory, and runc's root of their own, and one checkpoint root. */
export type Rivals = readonly [Stack, Stack];

export type Round = {
  /** The container that carried the job on. */
  winner: string;
  /** Wall time of all the creates together. */
  createMs: number;
};

const key = 'races';

export async function startRivals(): Promise<Rivals> {
  const here = await startStack({ rootJobsOnly: true, config: { hostId: 'here' } });
  const { checkpointRoot } = here;
  const there = await startStack({ rootJobsOnly: true, config: { hostId: 'there', checkpointRoot } });
  return [here, there];
}

/** A bundle that is created anew in every round, on one of the hosts. */
class Racer {
  readonly id: string;
  readonly bundle: string;
  readonly #runc: DirectRunc;
  readonly #env: Record<string, string>;
  readonly #log: string;

  private constructor(id: string, bundle: string, runc: DirectRunc, env: Record<string, string>) {
    this.id = id;
    this.bundle = bundle;
    this.#runc = runc;
    this.#env = env;
    this.#log = join(bundle, 'output');
  }

  static async make(stack: Stack, runc: DirectRunc, id: string): Promise<Racer> {
    const bundle = await runc.bundle(id, { args: counting, env: enabled(key) });
    return new Racer(id, bundle, runc, { ...stack.env, RACE_RUNTIME: stack.runtime });
  }

  /** Runs `create`; the job's streams are pipes of a shell's, for CRIU cannot dump a file of the host. */
  async create(): Promise<void> {
    writeFileSync(this.#log, '');
    const script = `{ : | { "$RACE_RUNTIME" --root "$1" create --bundle "$2" "$3"; echo "create $?"; } 2>&1 | cat >"$2/output"; } &`;
    const words = ['-c', script, 'sh', this.#runc.root, this.bundle, this.id];
    const shell = spawn('sh', words, { env: this.#env, stdio: 'ignore' });
    await once(shell, 'close');
    const [, status] = await this.sees(/^create (\d+)$/);
    if (status !== '0') throw new Error(`create of ${this.id} ended with ${status}: ${this.output()}`);
  }

  output = (): string => readFileSync(this.#log, 'utf8');
  sees = (line: RegExp) => waitForLine(this.id, this.output, line, { timeoutMs: 120_000 });
  run = (words: string[]) => this.#runc.run([...words, this.id], { timeoutMs: 300_000 });

  /** What became of the create: whether it carries the job on, and why not. */
  standing(): { resumed: boolean; failure: string | undefined } {
    const { snapshot } = readState(stateFileOf(this.bundle));
    const { failure } = snapshot.context as { failure?: { code: string } };
    return { resumed: JSON.stringify(snapshot.value).includes('restored'), failure: failure?.code };
  }

  ticks(): number[] {
    return ticksOf({ lines: () => completeLines(this.output()) });
  }
}

/**
 * Lets many containers of one job be created at once on two hosts, round after round, each round after the loss of all
 * containers of the one before.
 *
 * @throws where a round has not exactly one restore, where that one does not count on right after the image, where
 * another has done anything but start from scratch, or where there is another image than the one that was made.
 */
export async function race(
  rivals: Rivals,
  {
    count,
    rounds,
    said = () => {},
  }: { count: number; rounds: number; said?: (round: Round, n: number) => void },
): Promise<Round[]> {
  const [here, there] = rivals;
  const { checkpointRoot, dir } = here;
  const hosts = [here, there].map(async (stack) => [stack, await directRunc(stack)] as const);
  const racers: Racer[] = [];
  for (let i = 0; i < count; i++) {
    const [stack, runc] = await (hosts[i % hosts.length] as (typeof hosts)[number]);
    racers.push(await Racer.make(stack, runc, `racer-${i}`));
  }
  const [first] = racers as [Racer];
  await first.create();
  await first.run(['start']);
  await first.sees(/^tick 3$/);
  await first.run(['checkpoint', '--image-path', join(dir, 'racers-image')]);
  await first.run(['delete', '--force']);
  const last = first.ticks().at(-1) ?? 0;

  const results: Round[] = [];
  for (let n = 1; n <= rounds; n++) {
    const began = performance.now();
    await Promise.all(racers.map((racer) => racer.create()));
    const createMs = performance.now() - began;
    const winners = racers.filter((racer) => racer.standing().resumed);
    const [winner] = winners;
    if (!winner || winners.length > 1)
      throw new Error(
        `round ${n}: expected one restore, found ${winners.map(({ id }) => id).join(', ') || 'none'}`,
      );
    const odd = racers.filter((racer) => racer !== winner && racer.standing().failure !== 'life-refused');
    if (odd.length > 0)
      throw new Error(`round ${n}: not refused, and not restored: ${odd.map(({ id }) => id).join(', ')}`);
    const loser = racers[(racers.indexOf(winner) + 1) % racers.length] as Racer;
    for (const [racer, expected] of [
      [winner, last + 1],
      [loser, 1],
    ] as const) {
      await racer.run(['start']);
      await racer.sees(/^tick \d+$/);
      const [found] = racer.ticks();
      if (found !== expected)
        throw new Error(`round ${n}: ${racer.id} began with ${found}, expected ${expected}`);
    }
    await Promise.all(racers.map((racer) => racer.run(['delete', '--force'])));
    const images = imageNames(join(checkpointRoot, key)).join(' ');
    if (images !== '1 current')
      throw new Error(`round ${n}: expected the images 1 and current, found ${images}`);
    const round = { winner: winner.id, createMs };
    results.push(round);
    said(round, n);
  }
  return results;
}
