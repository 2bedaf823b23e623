import { existsSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { namesIn, textOf } from '../../src/actions/read-or-nothing.ts';
import { processesBy, wordsOf } from './proc.ts';
import { mountsUnder } from './sweep.ts';
import { type TortureHost, TortureHosts } from './torture-hosts.ts';
import { kindOf } from './torture-jobs.ts';
import { Lane } from './torture-lane.ts';
import { Troubles } from './torture-oracle.ts';
import { type Schedule, scheduleOf } from './torture-schedule.ts';
import { waitFor } from './wait.ts';

/** How long the steps of one round go on at most; what comes after it, until nothing is left, takes a quarter of that. */
const roundMs = 75_000;
/** More than are done in that time. */
const stepsOfRound = 80;

/** What is not as it must be, and where it was found. */
export type Violation = {
  seed: number;
  lane: string;
  step: number;
  doing: string;
  words: string;
  logs: string;
};

export type Tally = {
  rounds: number;
  steps: Map<string, number>;
  weather: Map<string, number>;
  restores: number;
  commits: number;
  /** Lives that began from scratch, by reason. */
  fresh: Map<string, number>;
};

const add = (to: Map<string, number>, from: Iterable<readonly [string, number]>): void => {
  for (const [name, count] of from) to.set(name, (to.get(name) ?? 0) + count);
};

/**
 * Tortures jobs on two hosts, round after round: each has its own seed, the first one the given, and its own jobs.
 *
 * @param violated told of what is wrong, as soon as it is found.
 * @param said told after each round.
 */
export async function torture({
  seed,
  minutes,
  jobs,
  violated,
  said,
}: {
  seed: number;
  minutes: number;
  jobs: number;
  violated: (violation: Violation) => void;
  said: (tally: Tally, roundSeed: number) => void;
}): Promise<Tally> {
  const until = Date.now() + minutes * 60_000;
  const troubles = new Troubles();
  const hosts = await TortureHosts.start(troubles);
  const tally: Tally = {
    rounds: 0,
    steps: new Map(),
    weather: new Map(),
    restores: 0,
    commits: 0,
    fresh: new Map(),
  };
  const known = new Set<string>();
  try {
    while (Date.now() < until) {
      const schedule = scheduleOf(seed + tally.rounds, { jobs, steps: stepsOfRound });
      await new Round(hosts, schedule, Math.min(until, Date.now() + roundMs), { violated, known }).run(tally);
      tally.rounds += 1;
      said(tally, schedule.seed);
    }
    return tally;
  } finally {
    await hosts.stop();
  }
}

/** A lane, and where it is. */
type Walked = { lane: Lane; at: { step: number; doing: string } };

class Round {
  readonly #hosts: TortureHosts;
  readonly #schedule: Schedule;
  readonly #until: number;
  readonly #violated: (violation: Violation) => void;
  /** What is left on the hosts, and was told of, or may be. */
  readonly #known: Set<string>;
  readonly #lanes: Walked[];

  constructor(
    hosts: TortureHosts,
    schedule: Schedule,
    until: number,
    { violated, known }: { violated: (violation: Violation) => void; known: Set<string> },
  ) {
    this.#hosts = hosts;
    this.#schedule = schedule;
    this.#until = until;
    this.#violated = violated;
    this.#known = known;
    this.#lanes = schedule.lanes.map((_, place) => {
      const kind = kindOf(place);
      const key = `s${schedule.seed}-${place}-${kind.name}`;
      const at = { step: 0, doing: 'nothing yet' };
      return { at, lane: new Lane(hosts, key, kind, (words) => this.#report(words, key, at)) };
    });
  }

  #report(words: string, lane: string, at: { step: number; doing: string }): void {
    const logs = Object.values(this.#hosts.hosts)
      .map(({ side, stack }) => `--- ${side}\n${tailOf(textOf(stack.logFile), lane)}`)
      .join('\n');
    this.#violated({ seed: this.#schedule.seed, lane, ...at, words, logs });
  }

  async run(tally: Tally): Promise<void> {
    const watching = setInterval(() => {
      for (const { lane } of this.#lanes) lane.watch();
    }, 150);
    try {
      const walking = this.#lanes.map((_, place) => this.#walk(place));
      await Promise.all([...walking, this.#weather(tally)]);
      await Promise.all(
        this.#lanes.map(({ lane, at }) => this.#guard(lane, at, 'settle', () => lane.settle())),
      );
    } finally {
      clearInterval(watching);
    }
    for (const { lane } of this.#lanes) {
      await rm(lane.home, { recursive: true, force: true });
      add(tally.steps, lane.done);
      add(tally.fresh, lane.oracle.fresh);
      tally.restores += lane.oracle.restores;
      tally.commits += lane.oracle.commits;
    }
    for (const host of Object.values(this.#hosts.hosts)) await this.#leavesNothing(host);
  }

  async #walk(place: number): Promise<void> {
    const { lane, at } = this.#lanes[place] as Walked;
    for (const [step, doing] of (this.#schedule.lanes[place] ?? []).entries()) {
      if (Date.now() > this.#until) return;
      at.step = step;
      await this.#guard(lane, at, JSON.stringify(doing), () => lane.take(doing));
    }
  }

  /** What torture itself trips over is told like anything else. */
  async #guard(lane: Lane, at: { doing: string }, doing: string, act: () => Promise<void>): Promise<void> {
    at.doing = doing;
    try {
      await act();
    } catch (error) {
      this.#report(`torture itself failed: ${error instanceof Error ? error.stack : error}`, lane.key, {
        step: -1,
        ...at,
      });
    }
  }

  async #weather(tally: Tally): Promise<void> {
    for (const weather of this.#schedule.weather) {
      const left = this.#until - Date.now();
      if (left < weather.afterMs + weather.forMs) return void (await delay(Math.max(0, left)));
      await delay(weather.afterMs);
      await this.#hosts.weather(weather);
      add(tally.weather, [[weather.kind, 1]]);
    }
  }

  /** That nothing is left on a host whose containers are all deleted. */
  async #leavesNothing(host: TortureHost): Promise<void> {
    const spared = this.#lanes.flatMap(({ lane }) => lane.spared(host));
    for (const what of leftOn(host))
      if (spared.some((each) => `${what}/`.includes(each))) this.#known.add(what);
    const look = () => leftOn(host).filter((what) => !this.#known.has(what));
    await waitFor('nothing to be left', () => look().length === 0, { timeoutMs: 15_000, everyMs: 250 }).catch(
      () => {
        const left = look();
        for (const what of left) this.#known.add(what);
        const at = { step: -1, doing: 'look for what is left' };
        const ids = new Set(left.join(' ').match(/s\d+-\d+-[a-z]+-\d+/g));
        const first = [...ids][0] ?? `s${this.#schedule.seed}`;
        this.#report(`host ${host.side}: ${left.join(', ')} are left; shims: ${shimsOn(host)}`, first, at);
        for (const id of [...ids].slice(1)) this.#report('likewise', id, at);
      },
    );
  }
}

/** What is left of containers on a host that has none, but for shims that their engine has forgotten. */
function leftOn(host: TortureHost): string[] {
  const { runcRoot, scratch, stack } = host;
  const { runDir, namespace } = stack;
  const cgroups = ['', ...namesIn('/sys/fs/cgroup')]
    .map((controller) => join('/sys/fs/cgroup', controller, namespace))
    .filter(existsSync);
  return [
    ...filesBelow(join(runDir, 'containers')),
    ...filesBelow(join(runDir, 'locks')),
    ...namesIn(runcRoot).map((name) => join(runcRoot, name)),
    ...filesBelow(scratch),
    ...cgroups.flatMap((cgroup) => directoriesIn(cgroup)),
    ...mountsUnder(runcRoot),
    ...processesBy((words) => words.includes(runcRoot)).map(
      (pid) => `process ${wordsOf(pid).join(' ').slice(-200)}`,
    ),
  ];
}

/** The containers whose shims are there. */
const shimsOn = ({ stack }: TortureHost): string =>
  processesBy((words) => words.includes(stack.namespace) && words.includes('-id'))
    .map((pid) => wordsOf(pid))
    .map((words) => words[words.indexOf('-id') + 1])
    .join(' ');

/** All below a directory that is not a directory; a symlink is not followed, as `recursive` would. */
function filesBelow(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? filesBelow(path) : [path];
    });
  } catch {
    return [];
  }
}

function directoriesIn(directory: string): string[] {
  try {
    const all = readdirSync(directory, { withFileTypes: true });
    return all.filter((entry) => entry.isDirectory()).map((entry) => join(directory, entry.name));
  } catch {
    return [];
  }
}

/** The last lines of a log that are about a lane's containers. */
const tailOf = (log: string, lane: string): string =>
  log
    .split('\n')
    .filter((line) => line.includes(`"id":"${lane}`))
    .slice(-40)
    .join('\n');
