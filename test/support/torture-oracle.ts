import type { Entry } from '../../src/actions/ledger.ts';
import type { Blow, Side, Weather } from './torture-schedule.ts';

/** Something that was done to a host, to the share, or to those who work on one container, and when. */
export type Trouble = {
  kind: Weather['kind'] | Blow['victim'] | 'signal' | 'murder';
  /** The host; both where there is none. */
  on?: Side;
  /** The container; all of the host where there is none. */
  id?: string;
  from: number;
  /** Infinity as long as it lasts. */
  to: number;
};

/** What a container is asked for: the time from the question to the answer, in milliseconds since the epoch. */
export type Asked = { id: string; on: Side; from: number; to: number };

/** How long what somebody has met may still be seen, or may have been met before it was noted. */
const graceMs = 1_000;

/** All that was done, whatever may be explained by it. */
export class Troubles {
  readonly #all: Trouble[] = [];

  add(trouble: Trouble): Trouble {
    this.#all.push(trouble);
    return trouble;
  }

  /** Whether one of these kinds could be met by who asked. */
  met(kinds: readonly Trouble['kind'][], { id, on, from, to }: Asked): boolean {
    return this.#all.some(
      (trouble) =>
        kinds.includes(trouble.kind) &&
        (trouble.on ?? on) === on &&
        (trouble.id ?? id) === id &&
        trouble.from <= to + graceMs &&
        trouble.to >= from - graceMs,
    );
  }
}

/** A line of a host's log that is about one container. */
export type Said = { code?: string | undefined; msg: string };

/** One run of a job in a container, from its create to its end. */
export type Birth = Asked & {
  /** The first number it printed; undefined where it printed none. */
  first?: number | undefined;
  /** The generation it was restored from, as its state says; undefined where it began from scratch. */
  generation?: number | undefined;
  /** Its epoch, where it holds the job or has held it. */
  epoch?: number | undefined;
  /** Warnings of Tardis about it, since it was asked for. */
  warnings: readonly Said[];
};

type Life = Birth & {
  /** When it may last have taken the job up. */
  claimedTo: number;
  /** When it was known to have ended, and whether its end stands in the ledger for sure. */
  endedAt?: number;
  isNoted?: boolean;
};

/** An image that is in the ledger, and between which numbers its job stood when it was dumped. */
type Image = { generation: number; epoch: number; low: number; high: number; at: number };

export type Checkpoint = Asked & {
  exit: boolean;
  succeeded: boolean;
  /** The first line of what the engine has answered. */
  answer: string;
  wasPaused: boolean;
  /** The last number before it was asked for, and after it was answered. */
  low: number;
  high: number;
  /** The image of this container's life that the ledger has since, if any. */
  generation?: number | undefined;
  epoch?: number | undefined;
  /** Whether the job is there still, and whether it has come to its own end. */
  isAlive: boolean;
  isDone: boolean;
};

const work = ['wrapper', 'runc', 'criu', 'guardian', 'shim', 'caller', 'containerd'] as const;
const weather = ['frozen', 'full', 'scratch'] as const;
/** By what a restore may fail. */
const spoilsRestore = [...work, ...weather] as const;
/** By what a job may be lost for good, though nobody meant to end it: CRIU that is killed may take a task with it. */
const endsJob = ['shim', 'criu', 'runc', 'signal', 'murder'] as const;

/**
 * What may be of one job, told of everything that is asked of it and of every answer; each question returns what is not as
 * it must be. It knows nothing of how Tardis decides.
 */
export class Oracle {
  readonly #key: string;
  readonly #troubles: Troubles;
  readonly #takeoverMs: number;
  readonly #resumesAlways: boolean;
  readonly #lives: Life[] = [];
  /** Creates that were answered with a failure: what is left of them may be in the way for a moment. */
  readonly #failed: Asked[] = [];
  readonly #images: Image[] = [];
  /** Ends that the job has come to by itself, as far as Tardis can tell. */
  readonly #finals: { at: number; isCertain: boolean; generation: number }[] = [];
  #ledger = new Map<number, Entry>();
  /** Why lives have begun from scratch, and how often. */
  readonly fresh = new Map<string, number>();
  restores = 0;
  commits = 0;

  constructor(
    key: string,
    {
      troubles,
      takeoverMs,
      resumesAlways = false,
    }: { troubles: Troubles; takeoverMs: number; resumesAlways?: boolean },
  ) {
    this.#key = key;
    this.#troubles = troubles;
    this.#takeoverMs = takeoverMs;
    this.#resumesAlways = resumesAlways;
  }

  /** A life has begun. */
  born(birth: Birth): string[] {
    const isResumed = birth.generation !== undefined;
    const wrong = isResumed ? this.#resumed(birth) : this.#began(birth);
    this.#lives.push({ ...birth, claimedTo: birth.to });
    return wrong.map((words) => `${birth.id} on ${birth.on}: ${words}`);
  }

  /** A create has failed. */
  unborn(asked: Asked, answer: string): string[] {
    this.#failed.push(asked);
    if (this.#troubles.met(work, asked)) return [];
    return [`${asked.id} on ${asked.on} could not be created, and nothing explains it: ${answer}`];
  }

  /** The life that a container has now. */
  #lifeOf({ id, on }: Pick<Asked, 'id' | 'on'>): Life | undefined {
    return this.#lives.findLast((life) => life.id === id && life.on === on);
  }

  #resumed(birth: Birth): string[] {
    const { generation = 0, first } = birth;
    this.restores += 1;
    const wrong: string[] = [];
    const image = this.#images.findLast((each) => each.generation === generation);
    if (!image) return [`it was restored from generation ${generation}, which no life has committed`];
    if (first !== undefined && (first <= image.low || first > image.high + 1)) {
      wrong.push(
        `it carried on at ${first} from generation ${generation}, expected ${range(image.low + 1, image.high + 1)}`,
      );
    }
    const newest = this.#images.at(-1);
    if (newest && newest.generation > generation) {
      const reason = birth.warnings.find(
        ({ msg }) =>
          msg.includes(`generation ${newest.generation} `) && / is taken|generation \d+ is$/.test(msg),
      );
      if (!reason) {
        wrong.push(
          `it was restored from generation ${generation}, although ${newest.generation} is the newest, and no warning says why`,
        );
      } else if (!this.#hasMet(spoilsRestore, birth)) {
        wrong.push(`no trouble explains why an older image was taken: ${reason.msg}`);
      }
    }
    const final = this.#finals.findLast((each) => each.isCertain && each.generation >= generation);
    if (final && !this.#resumesAlways && image.at < final.at) {
      wrong.push(`it was restored from generation ${generation}, although its job had ended by itself`);
    }
    return [...wrong, ...this.#rivals(birth)];
  }

  /** Whether this or an earlier restore on its host could fail. */
  #hasMet(kinds: readonly Trouble['kind'][], birth: Birth): boolean {
    return [birth, ...this.#lives, ...this.#failed]
      .filter(({ on }) => on === birth.on)
      .some((asked) => this.#troubles.met(kinds, asked));
  }

  /** Who carried the job on when it was taken from them too early. */
  #rivals(birth: Birth): string[] {
    if (birth.epoch === undefined) return ['it was restored, and its state has no epoch'];
    const holder = this.#lives
      .filter((life) => life.epoch !== undefined)
      .toSorted((one, other) => one.claimedTo - other.claimedTo)
      .at(-1);
    if (!holder || (holder.endedAt ?? Number.POSITIVE_INFINITY) <= birth.to) return [];
    const who = `${holder.id} on ${holder.on} carried the job on, in epoch ${holder.epoch}`;
    if (holder.on === birth.on) return [`it was restored although ${who}`];
    const age = birth.to - holder.from;
    if (age >= this.#takeoverMs) return [];
    return [`it was restored although ${who}, for ${age} ms`];
  }

  /** A life that began from scratch. */
  #began(birth: Birth): string[] {
    const { first, warnings } = birth;
    const wrong = first !== undefined && first !== 1 ? [`it began from scratch at ${first}, expected 1`] : [];
    const final = this.#finals.findLast(({ isCertain }) => isCertain);
    const newest = this.#images.findLast(
      ({ generation, at }) => this.#resumesAlways || !final || generation > final.generation || at > final.at,
    );
    const reason = warnings.find(({ code }) => code !== undefined);
    const name = reason?.code ?? (this.#images.length > 0 ? 'none' : 'no image yet');
    this.fresh.set(name, (this.fresh.get(name) ?? 0) + 1);
    if (!newest) return wrong;
    if (!reason) {
      return [
        ...wrong,
        `it began from scratch, no warning says why, and there is generation ${newest.generation}`,
      ];
    }
    const unexplained = this.#unexplained(birth, reason);
    return unexplained === undefined
      ? wrong
      : [...wrong, `it began from scratch, and ${unexplained}: ${reason.msg}`];
  }

  /** What is wrong with a reason for beginning from scratch; undefined where the schedule explains it. */
  #unexplained(birth: Birth, { code, msg }: Said): string | undefined {
    const met = (kinds: readonly Trouble['kind'][]): string | undefined =>
      this.#troubles.met(kinds, birth) ? undefined : `nothing that was done explains ${code}`;
    switch (code) {
      case 'life-refused':
        return this.#refusal(birth, msg);
      case 'images-unreachable':
      case 'ENOSPC':
        return met(weather);
      case 'job-ended':
        return this.#finals.length > 0 && !this.#resumesAlways ? undefined : 'it has not ended by itself';
      case 'image-attempts':
        return this.#hasMet(spoilsRestore, birth) ? undefined : 'no restore could fail here';
      case 'scratch-full':
      case 'disk-full':
        return met(['scratch', 'full']);
      case 'restore':
      case 'hold':
      case 'freezer':
      case 'loopback':
      case 'stalled':
      case 'too-long':
      case 'runc':
        return met(spoilsRestore);
      default:
        return 'it is none that this torture can bring about';
    }
  }

  /** What is wrong where a life was refused for another one's sake. */
  #refusal(birth: Birth, msg: string): string | undefined {
    const [, id = '', where = ''] = /^container (\S+) on (this|another) host/.exec(msg) ?? [];
    const isHere = (on: Side): boolean => (on === birth.on) === (where === 'this');
    const life = this.#lives.findLast((each) => each.id === id && isHere(each.on));
    const failed = this.#failed.findLast((each) => each.id === id && isHere(each.on));
    const asked = life ?? failed;
    // Who is created at the same time is told of later.
    if (!asked) return undefined;
    const claimedTo = life?.claimedTo ?? asked.to;
    if (where === 'this') {
      const endedAt = life ? life.endedAt : asked.to + 5 * graceMs;
      return endedAt !== undefined && endedAt < birth.from - graceMs
        ? `that one had ended ${birth.from - endedAt} ms before`
        : undefined;
    }
    if (life?.isNoted && (life.endedAt ?? 0) < birth.from) return 'the end of that one was noted before';
    const age = birth.from - claimedTo;
    return age > this.#takeoverMs + graceMs ? `that one had held the job for ${age} ms` : undefined;
  }

  /** A checkpoint was answered. */
  checkpointed(given: Checkpoint): string[] {
    const { id, on, from, generation, epoch, succeeded, exit, answer, isAlive, isDone } = given;
    const life = this.#lifeOf(given);
    const wrong: string[] = [];
    const successor = life && this.#lives.find((other) => other.to <= from && succeeds(other, life));
    if (life && epoch !== undefined) {
      if (life.epoch !== epoch) life.claimedTo = given.to;
      life.epoch = epoch;
    }
    if (generation !== undefined) {
      this.commits += 1;
      this.#images.push({ generation, epoch: epoch ?? 0, low: given.low, high: given.high, at: given.to });
      if (successor) {
        wrong.push(
          `it committed generation ${generation}, although ${successor.id} on ${successor.on} had taken the job up before`,
        );
      }
    }
    if (succeeded) {
      if (generation === undefined) wrong.push('its checkpoint succeeded, and the ledger has no image of it');
      if (exit && isAlive) wrong.push('its checkpoint with exit succeeded, and it runs on');
    } else if (!this.#mayFail(given, life, successor !== undefined)) {
      wrong.push(`its checkpoint failed, and nothing explains it: ${answer}`);
    }
    const isMeant = exit && generation !== undefined;
    if (!isAlive && !isMeant && !isDone && !this.#troubles.met(endsJob, given))
      wrong.push(`its job is gone after a checkpoint ${succeeded ? 'that left it running' : 'that failed'}`);
    if (!isAlive && life) {
      life.endedAt ??= given.to;
      life.isNoted = isMeant && succeeded && !this.#troubles.met(weather, given);
    }
    return wrong.map((words) => `${id} on ${on}: ${words}`);
  }

  #mayFail(given: Checkpoint, life: Life | undefined, isSuperseded: boolean): boolean {
    const { answer, wasPaused, isDone } = given;
    if (/has started from scratch while /.test(answer)) return life?.epoch === undefined;
    const [, successor] = / but container (\S+) .*took the job up in epoch \d+/.exec(answer) ?? [];
    if (successor) return isSuperseded || this.#failed.some((asked) => asked.id === successor);
    // One that had superseded it, and had no image either, has ended, and nobody is left.
    if (/ the ledger of its key is gone/.test(answer))
      return isSuperseded || this.#failed.some((asked) => asked.to >= (life?.from ?? 0));
    if (/ which it has not seen/.test(answer)) return life?.epoch === undefined;
    if (/ is of another container /.test(answer)) return false;
    return wasPaused || isDone || this.#troubles.met([...work, ...weather, 'signal'], given);
  }

  /** A job has ended, other than by a checkpoint; by itself where nothing else explains it to Tardis. */
  ended({ id, on }: Pick<Asked, 'id' | 'on'>, at: number): void {
    const life = this.#lifeOf({ id, on });
    if (life) life.endedAt ??= at;
  }

  /** A job has ended by something that Tardis may take for its own end. */
  mayHaveFinished(id: string, on: Side): void {
    const { generation = 0 } = this.#lifeOf({ id, on }) ?? {};
    this.#finals.push({ at: Date.now(), isCertain: false, generation });
  }

  /**
   * A container whose job had ended, or is ended by that, was deleted.
   *
   * @param end `done`: it came to its end by itself, and no signal may have ended it; `doubtful`: it may count as such, or not.
   * @param isNoted whether nothing can have kept Tardis from noting it.
   */
  deleted(asked: Asked, end: 'done' | 'doubtful' | 'killed', isNoted: boolean): void {
    const life = this.#lifeOf(asked);
    if (!life) return;
    life.endedAt ??= asked.to;
    const isLatest = life.epoch !== undefined && !this.#lives.some((other) => succeeds(other, life));
    // One that is not the latest was superseded: its end is noted nowhere.
    life.isNoted ||= isNoted && isLatest;
    if (end === 'killed') return;
    const own = this.#images.filter(({ epoch }) => epoch === life.epoch).map(({ generation }) => generation);
    this.#finals.push({
      at: asked.to,
      isCertain: end === 'done' && isNoted && isLatest,
      generation: Math.max(life.generation ?? 0, ...own),
    });
  }

  /**
   * Looks at the entries that the ledger has now, together with those that it has had.
   *
   * @returns images that a life has committed which another one had succeeded.
   */
  seen(entries: readonly Entry[]): string[] {
    for (const entry of entries) {
      const known = this.#ledger.get(entry.number);
      // A ledger without images was removed, and begun anew.
      if (known && known.at !== entry.at) this.#ledger = new Map();
      if (known?.at === entry.at) continue;
      this.#ledger.set(entry.number, entry);
      if (entry.kind !== 'image') continue;
      const before = [...this.#ledger.values()].filter(({ number }) => number < entry.number);
      const holder = Math.max(0, ...before.filter(({ kind }) => kind === 'life').map(({ number }) => number));
      if (holder > entry.epoch) {
        return [
          `${this.#key}: generation ${entry.generation} was committed in epoch ${entry.epoch}, after a life had begun in epoch ${holder}`,
        ];
      }
    }
    return [];
  }
}

/**
 * Whether a life has taken the job up after another one. Epochs tell it of those that began at the same time alone: they
 * begin at one again where a ledger without images was removed.
 */
const succeeds = (life: Life, { epoch, from, claimedTo }: Life): boolean =>
  life.epoch !== undefined &&
  epoch !== undefined &&
  life.claimedTo >= from &&
  (life.epoch > epoch || life.from >= claimedTo);

const range = (low: number, high: number): string => (low === high ? `${low}` : `${low} to ${high}`);
