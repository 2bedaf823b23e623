import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createActor, type SnapshotFrom } from 'xstate';
import { containerMachine } from '../../src/machines/container.ts';
import { type ContainerEvent, isPauseForCheckpoint } from '../../src/machines/container-context.ts';
import { pathOf } from '../../src/machines/paths.ts';
import { endingsOf, next } from '../support/machine-paths.ts';
import {
  callOf,
  container,
  engineCallOf,
  events,
  failure,
  image,
  requestOf,
  shimAt,
} from '../support/machine-samples.ts';

type Snapshot = SnapshotFrom<typeof containerMachine>;

/** How long after its pause an engine's checkpoint may come. */
const patience = 5_000;
const pauseAt = (ms: number): ContainerEvent => ({ type: 'PAUSE', call: engineCallOf(shimAt(ms), 'pause') });
const pauseOfOperator: ContainerEvent = { type: 'PAUSE', call: callOf('pause') };
const checkpointAt = (ms: number, pid?: number, leaveRunning = true): ContainerEvent => ({
  type: 'CHECKPOINT',
  call: engineCallOf(shimAt(ms, pid), 'checkpoint'),
  request: requestOf(leaveRunning),
});
const checkpointOfOperator: ContainerEvent = {
  type: 'CHECKPOINT',
  call: callOf('checkpoint'),
  request: requestOf(true),
};
const failed = { outcome: 'failed', failure };
const continues = { outcome: 'continues', image };

/** A container after these commands, each of which succeeds but for a checkpoint, which ends as it is said. */
function live(given: readonly ContainerEvent[], checkpoint: object = failed, from = running()): Snapshot {
  return given.reduce(
    (snapshot, event) => settle(next(containerMachine, snapshot, event) as Snapshot, checkpoint),
    from,
  );
}

function settle(snapshot: Snapshot, checkpoint: object): Snapshot {
  const outputs = { findImage: [{ life: { epoch: 1 }, images: [] }], checkpoint: [checkpoint], delete: [0] };
  const done = endingsOf(snapshot, outputs).find(({ how }) => how === 'done');
  return done ? settle(next(containerMachine, snapshot, done) as Snapshot, checkpoint) : snapshot;
}

const running = (): Snapshot =>
  live([events.RUN], failed, createActor(containerMachine, { input: { container } }).getSnapshot());

const placeOf = ({ value, context }: Snapshot) => [pathOf(value), context.awaitsResume];
const runsOn = ['alive.running', true];
const staysPaused = ['alive.paused', false];

describe('a checkpoint that fails', () => {
  it.each([
    ['the same shim has paused just before', [pauseAt(0), checkpointAt(10)]],
    ['the same shim has paused seconds before', [pauseAt(0), checkpointAt(patience)]],
    ['a signal came between', [pauseAt(0), events.KILL, checkpointAt(10)]],
    ['it was paused and resumed before that', [pauseOfOperator, events.RESUME, pauseAt(0), checkpointAt(10)]],
    ['the clock was put back meanwhile', [pauseAt(5_000), checkpointAt(10)]],
  ])('leaves a job running if %s', (_, given) => {
    expect(placeOf(live(given))).toEqual(runsOn);
  });

  it.each([
    ['another shim has paused', [pauseAt(0), checkpointAt(10, 78)]],
    ['the same shim has paused long before', [pauseAt(0), checkpointAt(patience + 1)]],
    ['an operator has paused', [pauseOfOperator, checkpointAt(10)]],
    ['an operator asks for it', [pauseAt(0), checkpointOfOperator]],
    ['an operator does both', [pauseOfOperator, checkpointOfOperator]],
    [
      'others have resumed and paused between',
      [pauseAt(0), events.RESUME, pauseOfOperator, checkpointAt(10)],
    ],
    ['an earlier checkpoint has had that pause', [pauseAt(0), checkpointOfOperator, checkpointAt(10)]],
  ])('leaves a job paused if %s', (_, given) => {
    expect(placeOf(live(given))).toEqual(staysPaused);
  });

  it('leaves a job running that was not paused, and awaits no resume', () => {
    expect(placeOf(live([checkpointAt(10)]))).toEqual(['alive.running', false]);
    const resumed = [pauseAt(0), events.RESUME, checkpointAt(10)];
    expect(placeOf(live(resumed))).toEqual(['alive.running', false]);
  });

  it('leaves a pid that is used again for another shim', () => {
    const other = { ...shimAt(10), startTime: 2_000 };
    const checkpoint = { ...events.CHECKPOINT, call: engineCallOf(other, 'checkpoint') };
    expect(placeOf(live([pauseAt(0), checkpoint]))).toEqual(staysPaused);
  });

  it.each([
    ['a resume', [events.RESUME], ['alive.running', false]],
    ['a signal', [events.KILL], runsOn],
    ['a signal and a resume', [events.KILL, events.RESUME], ['alive.running', false]],
    ['a pause', [pauseOfOperator], staysPaused],
    ['another pause and checkpoint', [pauseAt(20), checkpointAt(30)], runsOn],
  ])('lets %s follow', (_, given, expected) => {
    expect(placeOf(live([pauseAt(0), checkpointAt(10), ...given]))).toEqual(expected);
  });
});

describe('a checkpoint that succeeds', () => {
  it('lets a job run on that an engine has paused for it, whether or not its own resume follows', () => {
    const snapshot = live([pauseAt(0), checkpointAt(10)], continues);
    expect(placeOf(snapshot)).toEqual(runsOn);
    expect(placeOf(live([events.RESUME], continues, snapshot))).toEqual(['alive.running', false]);
  });

  it('leaves a job paused that somebody else has paused', () => {
    expect(placeOf(live([pauseOfOperator, checkpointAt(10)], continues))).toEqual(staysPaused);
  });

  it('does not give its pause to the next one', () => {
    const snapshot = live([pauseAt(0), checkpointAt(10), pauseOfOperator], continues);
    expect(placeOf(live([checkpointAt(20)], failed, snapshot))).toEqual(staysPaused);
  });
});

describe('a state file of before there were such pauses', () => {
  const old = (snapshot: Snapshot): Snapshot => {
    const written = JSON.parse(JSON.stringify(containerMachine.getPersistedSnapshot(snapshot)));
    for (const field of ['pausedBy', 'pausedForCheckpoint', 'awaitsResume']) delete written.context[field];
    return createActor(containerMachine, { snapshot: written, input: { container } }).getSnapshot();
  };

  it('is gone on from: a running job', () => {
    const snapshot = old(running());
    expect(snapshot.can(events.RESUME)).toBe(false);
    expect(placeOf(live([pauseAt(0), checkpointAt(10)], failed, snapshot))).toEqual(runsOn);
  });

  it('is gone on from: a paused job, whose pause is nobody’s', () => {
    const snapshot = old(live([pauseAt(0)]));
    expect(placeOf(live([checkpointAt(10)], failed, snapshot))).toEqual(staysPaused);
    expect(placeOf(live([events.RESUME], failed, snapshot))).toEqual(['alive.running', false]);
  });
});

describe('isPauseForCheckpoint', () => {
  const shim = fc.record({
    pid: fc.integer({ min: 1, max: 3 }),
    startTime: fc.integer({ min: 1, max: 2 }),
    at: fc.integer({ min: 0, max: 3 * patience }),
  });
  const maybe = fc.option(shim, { nil: undefined });

  it('takes a pause of nobody, of another, or of long ago for none', () => {
    fc.assert(
      fc.property(maybe, maybe, (pausedBy, by) => {
        if (!isPauseForCheckpoint(pausedBy, by)) return;
        expect(pausedBy?.pid).toBe(by?.pid);
        expect(pausedBy?.startTime).toBe(by?.startTime);
        expect((by?.at ?? 0) - (pausedBy?.at ?? 0)).toBeLessThanOrEqual(patience);
      }),
    );
  });

  it('takes a pause of the same within seconds for one', () => {
    fc.assert(
      fc.property(shim, fc.integer({ min: 0, max: patience }), (by, ms) => {
        expect(isPauseForCheckpoint(by, { ...by, at: by.at + ms })).toBe(true);
      }),
    );
  });
});
