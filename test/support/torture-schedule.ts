/**
 * What a round of torture does, and in which order: drawn from a seed, before anything is done. What the steps meet when
 * they are done, and how they interleave, is the host's: no seed repeats that.
 */

export const sides = ['a', 'b'] as const;
/** One of the two hosts. */
export type Side = (typeof sides)[number];

/** Who is killed while a command works, so many milliseconds after it was first seen. */
export type Blow = {
  victim: 'wrapper' | 'runc' | 'criu' | 'guardian' | 'shim' | 'caller' | 'containerd';
  afterMs: number;
};

/** What is done to one job; `which` chooses among its containers, counted from the latest one. */
export type Step =
  | { op: 'create'; on: Side; blow?: Blow }
  /** Creates on both hosts at once. */
  | { op: 'race'; creates: number }
  | { op: 'checkpoint'; which: number; exit: boolean; blow?: Blow; signal?: JobSignal }
  | { op: 'signal'; which: number; signal: JobSignal }
  /** The job's first process is killed by somebody who is not runc. */
  | { op: 'murder'; which: number }
  | { op: 'shim'; which: number }
  | { op: 'pause'; which: number }
  | { op: 'resume'; which: number }
  | { op: 'delete'; which: number; force: boolean; blow?: Blow }
  /** A stopped container's task once more, in the root file system as it was left. */
  | { op: 'restart'; which: number }
  | { op: 'rest'; ms: number };

export type JobSignal = 'TERM' | 'KILL' | 'QUIT';

/** What happens to a host, or to the share of both, whatever the jobs do meanwhile. */
export type Weather = {
  kind: 'frozen' | 'full' | 'scratch' | 'containerd';
  on: Side;
  /** How long after the one before it has passed. */
  afterMs: number;
  forMs: number;
};

export type Schedule = {
  seed: number;
  /** One list for each job; they are gone through at the same time. */
  lanes: Step[][];
  weather: Weather[];
};

/** Numbers in [0, 1) that a seed repeats: mulberry32. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

type Random = () => number;

const upTo = (random: Random, limit: number): number => Math.floor(random() * limit);
const oneOf = <Value>(random: Random, values: readonly Value[]): Value =>
  values[upTo(random, values.length)] as Value;

/** One of several, each as often as its weight says. */
function weighed<Value>(
  random: Random,
  choices: readonly (readonly [weight: number, value: Value])[],
): Value {
  let left = random() * choices.reduce((sum, [weight]) => sum + weight, 0);
  for (const [weight, value] of choices) {
    left -= weight;
    if (left < 0) return value;
  }
  return (choices.at(-1) as readonly [number, Value])[1];
}

const blowIn = (random: Random, victims: readonly Blow['victim'][]): { blow?: Blow } =>
  random() < 0.6
    ? {}
    : {
        blow: {
          victim: oneOf(random, victims),
          // Mostly within the first moments of the victim, which are many.
          afterMs: Math.floor(random() ** 2 * 900),
        },
      };

/** Mostly the latest container, which is the one that carries the job on, mostly. */
const whichOne = (random: Random): number =>
  weighed(random, [
    [6, 0],
    [2, 1],
    [1, 2],
  ] as const);
const signalOf = (random: Random): JobSignal =>
  weighed(random, [
    [3, 'TERM'],
    [3, 'KILL'],
    [1, 'QUIT'],
  ] as const);

const stepKinds = [
  [7, 'create'],
  [2, 'race'],
  [9, 'checkpoint'],
  [3, 'signal'],
  [1, 'murder'],
  [1, 'shim'],
  [1, 'pause'],
  [1.5, 'resume'],
  [5, 'delete'],
  [1.5, 'restart'],
  [5, 'rest'],
] as const;

function stepFrom(random: Random): Step {
  const op = weighed(random, stepKinds);
  switch (op) {
    case 'create':
      return {
        op,
        on: oneOf(random, sides),
        ...blowIn(random, ['wrapper', 'runc', 'criu', 'shim', 'caller', 'containerd']),
      };
    case 'race':
      return { op, creates: 2 + upTo(random, 2) };
    case 'checkpoint':
      return {
        op,
        which: whichOne(random),
        exit: random() < 0.5,
        ...blowIn(random, ['wrapper', 'runc', 'criu', 'guardian', 'shim', 'caller', 'containerd']),
        ...(random() < 0.08 ? { signal: signalOf(random) } : {}),
      };
    case 'signal':
      return { op, which: whichOne(random), signal: signalOf(random) };
    case 'delete':
      return {
        op,
        which: 2 - whichOne(random),
        force: random() < 0.7,
        ...(random() < 0.2 ? { blow: { victim: 'wrapper', afterMs: upTo(random, 200) } } : {}),
      };
    case 'rest':
      return { op, ms: 100 + Math.floor(random() ** 2 * 4000) };
    default:
      return { op, which: whichOne(random) };
  }
}

const weatherKinds = [
  [4, 'frozen'],
  [2, 'full'],
  [2, 'scratch'],
  [2, 'containerd'],
] as const;

const weatherFrom = (random: Random): Weather => ({
  kind: weighed(random, weatherKinds),
  on: oneOf(random, sides),
  afterMs: 1000 + upTo(random, 9000),
  forMs: 300 + Math.floor(random() ** 2 * 6000),
});

/**
 * Draws a round. A job's steps depend on the seed and on its place alone, so that a round with fewer jobs repeats theirs.
 *
 * @param jobs how many jobs there are.
 * @param steps how many steps each of them has.
 */
export function scheduleOf(seed: number, { jobs, steps }: { jobs: number; steps: number }): Schedule {
  const streamOf = (place: number): Random => randomFrom(Math.imul(seed, 0x9e3779b1) + place);
  const many = <Value>(count: number, draw: () => Value): Value[] => Array.from({ length: count }, draw);
  return {
    seed,
    lanes: Array.from({ length: jobs }, (_, lane) => {
      const random = streamOf(lane + 1);
      const first: Step = { op: 'create', on: oneOf(random, sides) };
      return [first, ...many(steps - 1, () => stepFrom(random))];
    }),
    weather: many(
      steps,
      (
        (random: Random) => () =>
          weatherFrom(random)
      )(streamOf(0)),
    ),
  };
}
