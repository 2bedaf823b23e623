import { describe, expect, it } from 'vitest';
import type { SnapshotFrom } from 'xstate';
import { getShortestPaths } from 'xstate/graph';
import { containerMachine } from '../../src/machines/container.ts';
import { pathOf, refusalOf } from '../../src/machines/paths.ts';
import { leavesOf, next, pathOfNode } from '../support/machine-paths.ts';
import { container, type EventName, events, whatMayCome } from '../support/machine-samples.ts';

const running = {
  PAUSE: 'alive.pausing',
  'PAUSE by an engine': 'alive.pausing',
  KILL: 'alive.running',
  DELETE: 'deleting',
  CHECKPOINT: 'alive.checkpointing',
  'CHECKPOINT leaving': 'alive.checkpointing',
  'CHECKPOINT by an engine': 'alive.checkpointing',
  'OBSERVED paused': 'alive.paused',
  'OBSERVED stopped': 'alive.stopped',
  'OBSERVED gone': 'alive.stopped',
};

/** Where an engine has paused a container for a checkpoint that has failed, and Tardis has let it run on. */
const awaiting = 'alive.running, awaiting a resume';

/** Where an engine has paused a container, and may never have been answered. */
const pausedByEngine = 'alive.paused, by an engine';

const paused = {
  RESUME: 'alive.resuming',
  KILL: 'alive.paused',
  DELETE: 'deleting',
  CHECKPOINT: 'alive.checkpointing',
  'CHECKPOINT leaving': 'alive.checkpointing',
  'CHECKPOINT by an engine': 'alive.checkpointing',
  'OBSERVED running': 'alive.running',
  'OBSERVED stopped': 'alive.stopped',
  'OBSERVED gone': 'alive.stopped',
};

/** What may be asked of a resting container, and where it leads. What is not here is refused. */
const legal: Readonly<Record<string, Partial<Record<EventName, string>>>> = {
  new: {
    CREATE: 'alive.creating.lookingForImage',
    RUN: 'alive.creating.lookingForImage',
    'RUN foreground': 'alive.running',
    RESTORE: 'alive.adopting',
    'RESTORE foreground': 'alive.running',
    DELETE: 'deleting',
  },
  'alive.created': {
    START: 'alive.starting',
    KILL: 'alive.created',
    DELETE: 'deleting',
    'OBSERVED running': 'alive.running',
    'OBSERVED paused': 'alive.paused',
    'OBSERVED stopped': 'alive.stopped',
    'OBSERVED gone': 'alive.stopped',
  },
  'alive.running': running,
  [awaiting]: { ...running, RESUME: 'alive.running' },
  'alive.paused': paused,
  [pausedByEngine]: { ...paused, 'PAUSE by an engine': 'alive.paused' },
  'alive.restored': {
    START: 'alive.releasing',
    KILL: 'alive.restored',
    DELETE: 'deleting',
    'OBSERVED running': 'alive.running',
    'OBSERVED stopped': 'alive.stopped',
    'OBSERVED gone': 'alive.stopped',
  },
  'alive.stopped': {
    KILL: 'alive.stopped',
    DELETE: 'deleting',
    'OBSERVED running': 'alive.running',
    'OBSERVED paused': 'alive.paused',
  },
  'alive.checkpointed': { KILL: 'alive.checkpointed', DELETE: 'deleting' },
  'alive.failed': {
    KILL: 'alive.failed',
    DELETE: 'deleting',
    'OBSERVED running': 'alive.running',
    'OBSERVED paused': 'alive.paused',
  },
  deleted: {},
};

const verbs: Readonly<Record<string, string>> = {
  CREATE: 'create',
  RUN: 'run',
  RESTORE: 'restore',
  START: 'start',
  PAUSE: 'pause',
  RESUME: 'resume',
  KILL: 'kill',
  DELETE: 'delete',
  CHECKPOINT: 'checkpoint',
  OBSERVED: 'observe',
};

const words: Readonly<Record<string, string>> = {
  new: 'not created',
  'alive.created': 'created',
  'alive.running': 'running',
  [awaiting]: 'running',
  'alive.paused': 'paused',
  [pausedByEngine]: 'paused',
  'alive.restored': 'restored',
  'alive.stopped': 'stopped',
  'alive.checkpointed': 'checkpointed',
  'alive.failed': 'failed',
  deleted: 'deleted',
};

const reached: SnapshotFrom<typeof containerMachine>[] = getShortestPaths(containerMachine, {
  input: { container },
  events: whatMayCome as never,
  limit: 100_000,
}).map(({ state }) => state);

const placeOf = ({ value, context }: (typeof reached)[number]): string => {
  const path = pathOf(value);
  if (path === 'alive.running' && context.awaitsResume) return awaiting;
  return path === 'alive.paused' && context.pausedBy ? pausedByEngine : path;
};

const table = Object.keys(legal).flatMap((from) =>
  Object.keys(events).map((name) => ({
    from,
    name: name as EventName,
    to: legal[from]?.[name as EventName],
  })),
);

describe('what may be asked of a container', () => {
  it('should be laid down here for every state that rests', () => {
    const resting = leavesOf(containerMachine).filter(({ tags }) => tags.includes('resting'));
    expect(Object.keys(legal).sort()).toEqual([...resting.map(pathOfNode), awaiting, pausedByEngine].sort());
  });

  it.each(table.filter(({ to }) => to !== undefined))(
    'should take $name in $from to $to',
    ({ from, name, to }) => {
      const snapshots = reached.filter((each) => placeOf(each) === from);
      expect(snapshots.length).toBeGreaterThan(0);
      for (const snapshot of snapshots) {
        expect(snapshot.can(events[name])).toBe(true);
        expect(pathOf(next(containerMachine, snapshot, events[name]).value)).toBe(to);
      }
    },
  );

  it.each(table.filter(({ to }) => to === undefined))(
    'should refuse $name in $from, and say why',
    ({ from, name }) => {
      const snapshots = reached.filter((each) => placeOf(each) === from);
      expect(snapshots.length).toBeGreaterThan(0);
      for (const snapshot of snapshots) {
        expect(snapshot.can(events[name])).toBe(false);
        const after = next(containerMachine, snapshot, events[name]);
        expect([after.value, after.context]).toEqual([snapshot.value, snapshot.context]);
        const { type } = events[name];
        expect(refusalOf(events[name], snapshot.value)).toBe(
          `cannot ${verbs[type]} a container that is ${words[from]}`,
        );
      }
    },
  );

  it('runs nothing if an engine resumes a container that runs already, and only once', () => {
    for (const snapshot of reached.filter((each) => placeOf(each) === awaiting)) {
      const after = next(containerMachine, snapshot, events.RESUME);
      expect(after.context).toMatchObject({ awaitsResume: false, answer: { status: 0 } });
      expect(after.can(events.RESUME)).toBe(false);
    }
  });

  it('should know whether a checkpointed container had been paused', () => {
    for (const [from, wasPaused] of [
      ['alive.running', false],
      ['alive.paused', true],
    ] as const) {
      for (const snapshot of reached.filter((each) => placeOf(each) === from)) {
        const after = next(containerMachine, snapshot, events.CHECKPOINT);
        expect(after.context).toMatchObject({ wasPaused, request: events.CHECKPOINT.request });
      }
    }
  });
});
