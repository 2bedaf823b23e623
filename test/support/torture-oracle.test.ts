import { describe, expect, it } from 'vitest';
import type { Entry } from '../../src/actions/ledger.ts';
import { type Asked, type Birth, type Checkpoint, Oracle, Troubles } from './torture-oracle.ts';

/** Of a job that takes a second for everything, with one image after another. */
class Story {
  readonly troubles = new Troubles();
  readonly oracle: Oracle;
  now = 100_000;

  constructor(resumesAlways = false) {
    this.oracle = new Oracle('job', { troubles: this.troubles, takeoverMs: 2_000, resumesAlways });
  }

  asked(id: string, on: Asked['on'] = 'a'): Asked {
    this.now += 1_000;
    return { id, on, from: this.now - 1_000, to: this.now };
  }

  born(id: string, birth: Partial<Birth>): string[] {
    return this.oracle.born({ ...this.asked(id, birth.on), warnings: [], ...birth });
  }

  checkpointed(id: string, checkpoint: Partial<Checkpoint>): string[] {
    return this.oracle.checkpointed({
      ...this.asked(id, checkpoint.on),
      ...{ exit: true, succeeded: true, answer: '', wasPaused: false, isAlive: false, isDone: false },
      ...{ low: 9, high: 9 },
      ...checkpoint,
    });
  }

  /** A first life, and its image 1, in which the job stands at 9. */
  begun(): this {
    expect(this.born('one', { first: 1, epoch: 1 })).toEqual([]);
    expect(this.checkpointed('one', { generation: 1, epoch: 1 })).toEqual([]);
    return this;
  }
}

describe('a life that carries its job on', () => {
  it('begins right after its image', () => {
    expect(new Story().begun().born('two', { first: 10, generation: 1, epoch: 3 })).toEqual([]);
    expect(new Story().begun().born('two', { first: 9, generation: 1, epoch: 3 })).toEqual([
      expect.stringMatching(/carried on at 9 from generation 1, expected 10$/),
    ]);
  });

  it('has no image that nobody has committed, and none that is not the newest, without a reason', () => {
    const story = new Story().begun();
    expect(story.born('two', { first: 10, generation: 1, epoch: 3 })).toEqual([]);
    expect(story.checkpointed('two', { generation: 2, epoch: 3, low: 20, high: 20 })).toEqual([]);
    expect(story.born('three', { first: 30, generation: 3, epoch: 5 })).toEqual([
      expect.stringMatching(/generation 3, which no life has committed/),
    ]);
    expect(story.born('four', { first: 10, generation: 1, epoch: 6 })).toEqual([
      expect.stringMatching(/although 2 is the newest, and no warning says why/),
      expect.stringMatching(/although three on a carried the job on/),
    ]);
  });

  it('takes the job from nobody who lives on its host, nor on the other one before its time', () => {
    for (const on of ['a', 'b'] as const) {
      const story = new Story().begun();
      expect(story.born('two', { on, first: 10, generation: 1, epoch: 3 })).toEqual([]);
      expect(story.born('three', { first: 10, generation: 1, epoch: 4 })).toEqual(
        on === 'a' ? [expect.stringMatching(/although two on a carried/)] : [],
      );
    }
    const story = new Story().begun();
    expect(story.born('two', { on: 'b', first: 10, generation: 1, epoch: 3 })).toEqual([]);
    const { now } = story;
    expect(story.born('three', { from: now, to: now + 500, first: 10, generation: 1, epoch: 4 })).toEqual([
      expect.stringMatching(/although two on b carried the job on, in epoch 3, for 1500 ms/),
    ]);
  });
});

describe('a life that begins from scratch', () => {
  it('needs a reason as soon as there is an image', () => {
    expect(new Story().begun().born('two', { first: 1, epoch: 3 })).toEqual([
      expect.stringMatching(/no warning says why, and there is generation 1/),
    ]);
  });

  it('needs a reason that the schedule explains', () => {
    const warnings = [{ code: 'images-unreachable', msg: 'the share did not answer' }];
    const story = new Story().begun();
    expect(story.born('two', { first: 1, warnings })).toEqual([
      expect.stringMatching(/nothing that was done explains images-unreachable: the share did not answer/),
    ]);
    story.troubles.add({ kind: 'frozen', from: story.now, to: story.now + 500 });
    expect(story.born('three', { first: 1, warnings })).toEqual([]);
    expect(story.oracle.fresh).toEqual(
      new Map([
        ['no image yet', 1],
        ['images-unreachable', 2],
      ]),
    );
  });

  it('is not refused for the sake of one that has ended', () => {
    const msg = 'container two on this host carries the job on, in epoch 3';
    const warnings = [{ code: 'life-refused', msg }];
    const story = new Story().begun();
    expect(story.born('two', { first: 10, generation: 1, epoch: 3 })).toEqual([]);
    expect(story.born('three', { first: 1, warnings })).toEqual([]);
    story.oracle.ended({ id: 'two', on: 'a' }, story.now);
    story.now += 5_000;
    expect(story.born('four', { first: 1, warnings })).toEqual([expect.stringMatching(/that one had ended/)]);
  });

  it('follows one that had come to its end, which is not resumed', () => {
    const end = (resumesAlways: boolean): Story => {
      const story = new Story(resumesAlways).begun();
      expect(story.born('two', { first: 10, generation: 1, epoch: 3 })).toEqual([]);
      story.oracle.deleted(story.asked('two'), 'done', true);
      return story;
    };
    expect(end(false).born('three', { first: 1, epoch: 5 })).toEqual([]);
    expect(end(true).born('three', { first: 1, epoch: 5 })).not.toEqual([]);
    expect(end(true).born('three', { first: 10, generation: 1, epoch: 5 })).toEqual([]);
    expect(end(false).born('three', { first: 10, generation: 1, epoch: 5 })).toEqual([
      expect.stringMatching(/although its job had ended by itself/),
    ]);
  });
});

describe('a checkpoint', () => {
  it('that fails has a reason, and its job runs on', () => {
    const failed = { succeeded: false, answer: 'no', isAlive: true };
    const story = new Story();
    story.born('one', { first: 1, epoch: 1 });
    expect(story.checkpointed('one', failed)).toEqual([expect.stringMatching(/nothing explains it: no/)]);
    story.troubles.add({ kind: 'wrapper', on: 'a', id: 'one', from: story.now, to: story.now + 1_000 });
    expect(story.checkpointed('one', failed)).toEqual([]);
    expect(story.checkpointed('one', { ...failed, isAlive: false })).toEqual([
      expect.stringMatching(/its job is gone after a checkpoint that failed/),
    ]);
  });

  it('that succeeds is in the ledger, and its job is ended if it was to be', () => {
    const story = new Story();
    story.born('one', { first: 1, epoch: 1 });
    expect(story.checkpointed('one', { isAlive: true })).toEqual([
      expect.stringMatching(/the ledger has no image of it/),
      expect.stringMatching(/it runs on/),
    ]);
  });

  it('of one that was superseded is refused', () => {
    const story = new Story().begun();
    story.born('two', { first: 10, generation: 1, epoch: 3 });
    story.born('three', { on: 'b', first: 10, generation: 1, epoch: 4 });
    const answer = 'in epoch 3, but container three on host b took the job up in epoch 4';
    expect(story.checkpointed('two', { succeeded: false, answer, isAlive: true })).toEqual([]);
    expect(story.checkpointed('two', { generation: 2, epoch: 3 })).toEqual([
      expect.stringMatching(/although three on b had taken the job up before/),
    ]);
  });
});

describe('a ledger', () => {
  const at = '2000-01-01';
  const life = (number: number): Entry => ({
    ...{ kind: 'life', number, at },
    claimant: { host: 'a', root: '/', id: 'one', wrapper: { pid: 1, startTime: 1 } },
  });
  const image = (number: number, epoch: number): Entry => ({
    kind: 'image',
    number,
    at,
    epoch,
    generation: 1,
  });

  it('has no image of a life that another one had succeeded, though its entry is gone by now', () => {
    const { oracle } = new Story();
    expect(oracle.seen([life(1), image(2, 1), life(3)])).toEqual([]);
    expect(oracle.seen([image(2, 1), image(4, 3)])).toEqual([]);
    expect(oracle.seen([image(5, 1)])).toEqual([
      expect.stringMatching(/committed in epoch 1, after a life had begun in epoch 3/),
    ]);
  });
});
