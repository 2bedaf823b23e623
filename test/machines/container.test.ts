import { describe, expect, it } from 'vitest';
import { type AnyMachineSnapshot, createActor, type SnapshotFrom } from 'xstate';
import { getShortestPaths } from 'xstate/graph';
import { RuncFailure } from '../../src/actions/runc.ts';
import { containerMachine } from '../../src/machines/container.ts';
import { interruptionIn, pathOf } from '../../src/machines/paths.ts';
import { endingsOf, leavesOf, next, pathOfNode, restsOf, serviceIn } from '../support/machine-paths.ts';
import {
  container,
  containerOutputs,
  events,
  failure,
  image,
  whatMayCome,
} from '../support/machine-samples.ts';

type Snapshot = SnapshotFrom<typeof containerMachine>;

const commands = Object.values(events);
const interruption = { state: 'alive.pausing' };

/** Every state and context that commands, services and their failures can lead to. */
const reached: Snapshot[] = [{ container }, { container, interruption }].flatMap((input) =>
  getShortestPaths(containerMachine, { input, events: whatMayCome as never, limit: 100_000 }).map(
    ({ state }) => state,
  ),
);

function at(path: string): Snapshot[] {
  const found = reached.filter(({ value }) => pathOf(value) === path);
  if (found.length === 0) throw new Error(`nothing leads to ${path}`);
  return found;
}

const restsFrom = (snapshot: Snapshot): string[] =>
  restsOf(containerMachine, snapshot, containerOutputs).map(({ value }) => pathOf(value));
const endOf = (snapshot: Snapshot, how: 'done' | 'fails', of: object = containerOutputs): Snapshot[] =>
  endingsOf(snapshot, of as typeof containerOutputs)
    .filter((ending) => ending.how === how)
    .map((ending) => next(containerMachine, snapshot, ending) as unknown as Snapshot);

const leaves = leavesOf(containerMachine);
const resting = leaves.filter(({ tags }) => tags.includes('resting')).map(pathOfNode);
const working = leaves.filter(({ invoke }) => invoke.length > 0).map(pathOfNode);

describe('the container machine', () => {
  it('should reach every one of its states by commands and by what services answer', () => {
    expect(new Set(reached.map(({ value }) => pathOf(value)))).toEqual(new Set(leaves.map(pathOfNode)));
  });

  it('should either work or rest, and never both', () => {
    expect(leaves.filter(({ type }) => type === 'final').map(pathOfNode)).toEqual(['deleted']);
    expect([...working, ...resting].sort()).toEqual(leaves.map(pathOfNode).sort());
  });

  it('should never be stuck: a command or a service takes it out of every state but the last', () => {
    const stuck = reached.filter((snapshot) => {
      if (snapshot.status === 'done') return false;
      return !whatMayCome(snapshot).some(
        (event) => pathOf(next(containerMachine, snapshot, event).value) !== pathOf(snapshot.value),
      );
    });
    expect(stuck.map(({ value }) => pathOf(value))).toEqual([]);
  });

  it.each(resting.filter((path) => path.startsWith('alive.')))(
    'should let a container in %s be deleted',
    (path) => {
      for (const snapshot of at(path)) {
        const after = next(containerMachine, snapshot, events.DELETE);
        expect(pathOf(after.value)).toBe('deleting');
        expect(restsFrom(after as unknown as Snapshot)).toEqual(['deleted', 'deleted', path]);
      }
    },
  );

  it.each(working)('should come to rest from %s, whether its service succeeds or fails', (path) => {
    for (const snapshot of at(path)) {
      const after = [...endOf(snapshot, 'done'), ...endOf(snapshot, 'fails')];
      expect(after.length).toBeGreaterThanOrEqual(2);
      for (const end of after) expect(pathOf(end.value)).not.toBe(path);
      for (const rest of restsFrom(snapshot)) expect(resting).toContain(rest);
    }
  });

  it('should take a state for interrupted exactly where the machine runs a service in it', () => {
    const interrupted = leaves.filter((leaf) => interruptionIn({ value: nested(leaf.path) }) !== undefined);
    expect(interrupted.map(pathOfNode)).toEqual(working);
    for (const snapshot of reached) {
      const found = interruptionIn(written(snapshot)) !== undefined;
      expect(found).toBe(serviceIn(snapshot) !== undefined);
    }
  });

  it('should put a rolled back container into created, into running for run --detach, or else into failed', () => {
    for (const snapshot of at('alive.rolledBack')) {
      expect(serviceIn(snapshot)).toBe('createAfresh');
      const { startsAtOnce } = snapshot.context;
      const good = startsAtOnce ? 'alive.running' : 'alive.created';
      expect(endOf(snapshot, 'done').map(({ value }) => pathOf(value))).toEqual([good]);
      expect(endOf(snapshot, 'done')[0]?.context.answer).toEqual({ status: 0 });
      expect(endOf(snapshot, 'fails').map(({ value }) => pathOf(value))).toEqual(['alive.failed']);
    }
    expect(new Set(at('alive.rolledBack').map(({ context }) => context.startsAtOnce))).toEqual(
      new Set([true, false]),
    );
  });

  it('should keep why a restore was rolled back, and answer that the create succeeded', () => {
    for (const snapshot of at('alive.restoring')) {
      const outputs = { restore: [{ outcome: 'rolledBack', failure }] };
      const [after] = endOf(snapshot, 'done', outputs);
      expect(after?.context).toMatchObject({ failure, answer: { status: 0 } });
    }
  });

  it('should not create a container afresh on a root file system that could not be put back', () => {
    for (const snapshot of at('alive.restoring')) {
      const [after] = endOf(snapshot, 'done', { restore: [{ outcome: 'failed', failure }] });
      expect(after && pathOf(after.value)).toBe('alive.failed');
      expect(after?.context).toMatchObject({ failure, answer: { status: 1, message: failure.message } });
    }
  });

  it('should hold a restored container until its start, but not one that was to start at once', () => {
    for (const snapshot of at('alive.restoring')) {
      const [after] = endOf(snapshot, 'done', { restore: [{ outcome: 'restored', image }] });
      const expected = snapshot.context.startsAtOnce ? 'alive.releasing' : 'alive.restored';
      expect(after && pathOf(after.value)).toBe(expected);
    }
  });

  it('fails, and creates nothing, if images are out of reach and the host wants that', () => {
    const life = { unseen: 'out of reach' };
    for (const snapshot of at('alive.creating.lookingForImage')) {
      const taken = (mustFail: boolean) =>
        endOf(snapshot, 'done', { findImage: [{ life, images: [], failure, mustFail }] })[0];
      const [refused, afresh] = [taken(true), taken(false)];
      expect([refused, afresh].map((after) => after && pathOf(after.value))).toEqual([
        'alive.failed',
        'alive.creating.fromScratch',
      ]);
      expect(refused?.context).toMatchObject({ failure, answer: { status: 1, message: failure.message } });
      expect(afresh?.context).toMatchObject({ life, failure, answer: { status: 0 } });
    }
  });

  it('should start from scratch where there is no image, and where images cannot be looked for', () => {
    for (const snapshot of at('alive.creating.lookingForImage')) {
      const [none] = endOf(snapshot, 'done', { findImage: [{ life: undefined, images: [] }] });
      const [unknown] = endOf(snapshot, 'fails');
      expect(none && pathOf(none.value)).toBe('alive.creating.fromScratch');
      expect(unknown && pathOf(unknown.value)).toBe('alive.creating.fromScratch');
      expect(unknown?.context.failure?.message).toBe('findImage failed');
    }
  });

  it('should leave a container whose checkpoint failed or went on as it was found', () => {
    for (const snapshot of at('alive.checkpointing')) {
      const { wasPaused, pausedForCheckpoint } = snapshot.context;
      const found = wasPaused ? 'alive.paused' : 'alive.running';
      // An engine's pause ends with the checkpoint that it was for.
      const left = pausedForCheckpoint ? 'alive.running' : found;
      for (const output of containerOutputs.checkpoint) {
        const [after] = endOf(snapshot, 'done', { checkpoint: [output] });
        const expected = output.outcome === 'checkpointed' ? 'alive.checkpointed' : left;
        expect(after && pathOf(after.value)).toBe(expected);
        expect(after?.context.answer.status).toBe(output.outcome === 'failed' ? 1 : 0);
        expect(after?.context.awaitsResume).toBe(output.outcome !== 'checkpointed' && pausedForCheckpoint);
      }
      const [after] = endOf(snapshot, 'fails');
      expect([after && pathOf(after.value), after?.context.awaitsResume]).toEqual([
        left,
        pausedForCheckpoint,
      ]);
    }
  });

  it("should answer with runc's own status and no words where runc has spoken for itself", () => {
    const [snapshot] = at('alive.starting');
    const [ending] = endingsOf(snapshot as Snapshot).filter(({ how }) => how === 'fails');
    const error = new RuncFailure(3, 'runc ended with 3');
    const after = next(containerMachine, snapshot as Snapshot, { ...ending, error } as never);
    expect(pathOf(after.value)).toBe('alive.created');
    expect(after.context).toMatchObject({ answer: { status: 3 }, failure: { code: 'runc', status: 3 } });
    expect(after.context.answer).not.toHaveProperty('message');
  });

  it("should answer a delete with runc's status, also for a container that had been gone", () => {
    for (const snapshot of at('deleting')) {
      expect(endOf(snapshot, 'done').map(({ context }) => context.answer)).toEqual([
        { status: 0 },
        { status: 1 },
      ]);
    }
  });

  it('should forget an interruption once it has recovered', () => {
    for (const snapshot of at('recovering')) {
      for (const after of [...endOf(snapshot, 'done'), ...endOf(snapshot, 'fails')]) {
        expect(written(after).context).not.toHaveProperty('interruption');
      }
    }
  });

  it.each(resting)(
    'should go on from a state file that rests in %s as if it had never been written',
    (path) => {
      for (const snapshot of at(path)) {
        const reloaded = createActor(containerMachine, {
          snapshot: written(snapshot) as never,
          input: { container },
        }).getSnapshot();
        for (const event of commands) {
          const [expected, found] = [snapshot, reloaded].map((from) =>
            written(next(containerMachine, from, event)),
          );
          expect(found).toEqual(expected);
        }
      }
    },
  );
});

/** A snapshot as the state file has it. */
function written(snapshot: AnyMachineSnapshot): { value: unknown; context: Record<string, unknown> } {
  return JSON.parse(JSON.stringify(containerMachine.getPersistedSnapshot(snapshot as Snapshot)));
}

const nested = ([key, ...rest]: readonly string[]): unknown =>
  rest.length === 0 ? key : { [key as string]: nested(rest) };
