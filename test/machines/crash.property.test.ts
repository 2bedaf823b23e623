import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CheckpointLeavingRunning,
  CheckpointWithExit,
  Create,
  Delete,
  DeleteForced,
  EngineCheckpointLeavingRunning,
  EngineCheckpointWithExit,
  type Given,
  JobEnds,
  Kill,
  LateEngineCheckpoint,
  type Model,
  newModel,
  OtherEngineCheckpoint,
  Pause,
  PauseByEngine,
  Restore,
  Resume,
  RunDetached,
  Start,
} from '../support/machine-commands.ts';
import { isInterrupted, StateReader } from '../support/machine-invariants.ts';
import { type Fate, type Host, stateOf } from '../support/machine-process.ts';
import { emptyWorld } from '../support/machine-world.ts';

const begins = [Create, RunDetached, Restore];
const checkpoints = [CheckpointWithExit, CheckpointLeavingRunning];
const others = [Start, Pause, Resume, Kill, Delete, DeleteForced];
const engines = [EngineCheckpointWithExit, EngineCheckpointLeavingRunning];
const strangers = [OtherEngineCheckpoint, LateEngineCheckpoint];

const calm = fc.constant<Fate[]>([]);
const fate: fc.Arbitrary<Fate> = fc.record({
  at: fc.nat({ max: 14 }),
  how: fc.constantFrom('dies before', 'dies after', 'fails before', 'fails after'),
});
/** Most commands meet nothing; the others a failure or a death, or a failure and a death while it is cleared up. */
const troubled = fc.oneof(
  { weight: 3, arbitrary: calm },
  { weight: 2, arbitrary: fc.array(fate, { minLength: 1, maxLength: 3 }) },
);

function lives(fates: fc.Arbitrary<Fate[]>) {
  // What leads on comes up more often than what ends a life.
  const byEngines = [PauseByEngine, PauseByEngine, ...engines, ...engines, ...strangers];
  const kinds = [...others, ...begins, ...begins, ...checkpoints, ...checkpoints, ...byEngines];
  const commands = kinds.map((Kind) => fates.map((given): fc.AsyncCommand<Model, Host> => new Kind(given)));
  return fc.commands([...commands, fc.constant(new JobEnds())], { maxCommands: 14, size: 'max' });
}

const live = (commands: Iterable<fc.AsyncCommand<Model, Host>>, reader: StateReader) => {
  const real: Host = { world: emptyWorld(), texts: [], reader };
  return fc.asyncModelRun(() => ({ model: newModel(), real }), commands);
};

describe('the life of a container', () => {
  it('should be what its callers ask for while nothing goes wrong', async () => {
    using reader = new StateReader();
    await fc.assert(
      fc.asyncProperty(lives(calm), (commands) => live(commands, reader)),
      { numRuns: 300 },
    );
  });

  it('should stay whole and known however often its wrapper fails or dies at any effect', async () => {
    using reader = new StateReader();
    await fc.assert(
      fc.asyncProperty(lives(troubled), (commands) => live(commands, reader)),
      { numRuns: 1_000 },
    );
  });

  it('should recover at the next command from a death at any effect of any command', async () => {
    const run = new RunDetached([]);
    const image = [run, new CheckpointLeavingRunning([]), new DeleteForced([])];
    const stories: [before: Given[], dying: (new (fates: Fate[]) => Given)[]][] = [
      [[], begins],
      [image, begins],
      [[new Create([])], [Start, DeleteForced]],
      [
        [...image, new Create([])],
        [Start, DeleteForced],
      ],
      [[run], [Pause, DeleteForced, ...checkpoints]],
      [
        [run, new Pause([])],
        [Resume, DeleteForced, ...checkpoints],
      ],
      [[run, new PauseByEngine([])], engines],
    ];
    const lived: Record<string, number> = {};
    for (const [before, kinds] of stories) {
      for (const Dying of kinds) {
        for (const death of await deathsOf(Dying, before)) {
          for (const Next of [...others, ...checkpoints]) {
            const { model } = await tell([...before, new Dying([death]), new Next([]), new DeleteForced([])]);
            expect(model.life).toBe('none');
          }
          lived[Dying.name] = (lived[Dying.name] ?? 0) + 1;
        }
      }
    }
    // Before and after each effect, so two for each; and for each story that the command is part of.
    expect(lived).toEqual({
      ...{ Create: 4 + 18, RunDetached: 4 + 20, Restore: 2 + 2, Start: 2 + 2, Pause: 2, Resume: 2 },
      ...{ EngineCheckpointWithExit: 20, EngineCheckpointLeavingRunning: 20 },
      ...{ CheckpointWithExit: 18 + 18, CheckpointLeavingRunning: 18 + 16, DeleteForced: 4 * 2 },
    });
  });
});

async function tell(story: Given[]): Promise<{ model: Model; real: Host }> {
  const told = { model: newModel(), real: { world: emptyWorld(), texts: [] } satisfies Host };
  await fc.asyncModelRun(() => told, story);
  return told;
}

/** Every point at which a command can die. */
async function deathsOf(Dying: new (fates: Fate[]) => Given, before: Given[]): Promise<Fate[]> {
  const deaths: Fate[] = [];
  for (let at = 0; ; at++) {
    for (const how of ['dies before', 'dies after'] as const) {
      const { real } = await tell([...before, new Dying([{ at, how }])]);
      const state = stateOf(real);
      if (!state || !isInterrupted(state)) return deaths;
      deaths.push({ at, how });
    }
  }
}
