import { describe, expect, it } from 'vitest';
import type { ContainerContext } from '../../src/machines/container-context.ts';
import { pathOf } from '../../src/machines/paths.ts';
import {
  CheckpointLeavingRunning,
  CheckpointWithExit,
  Create,
  CreateAgain,
  DeleteForced,
  EngineCheckpointLeavingRunning,
  type Given,
  newModel,
  OtherEngineCheckpoint,
  Pause,
  PauseByEngine,
  Resume,
  RunDetached,
  Start,
} from '../support/machine-commands.ts';
import { type Fate, type Host, stateOf } from '../support/machine-process.ts';
import { emptyWorld } from '../support/machine-world.ts';

const on = (at: number, how: Fate['how']): Fate => ({ at, how });

/** Lives a story to its end, and answers with what is then there. */
async function live(...story: Given[]) {
  const host: Host = { world: emptyWorld(), texts: [] };
  const model = newModel();
  for (const command of story) {
    expect(command.check(model)).toBe(true);
    await command.run(model, host);
  }
  const state = stateOf(host);
  const { awaitsResume } = (state?.snapshot.context ?? {}) as Partial<ContainerContext>;
  return { ...host.world, path: pathOf(state?.snapshot.value), awaitsResume };
}

const running = new RunDetached([]);
const imageLeft = [running, new CheckpointLeavingRunning([]), new DeleteForced([])];
/** The effects of a checkpoint with exit: `swap` makes the image current, `end` ends the job. */
const [swap, end, thawInUndo] = [7, 8, 9];
/** The effects of a create from an image, and of a start. */
const [endToApply, restoreMemory, beginReset, release] = [5, 6, 8, 0];

describe('a recovery', () => {
  it('should finish a checkpoint with exit whose image was committed', async () => {
    const after = await live(running, new CheckpointWithExit([on(swap, 'dies after')]), new DeleteForced([]));
    expect(after).toMatchObject({ container: 'none', current: 1, path: 'deleted' });
  });

  it('should let a job go on whose image was not yet current', async () => {
    const after = await live(running, new CheckpointWithExit([on(swap, 'dies before')]), new Pause([]));
    expect(after).toMatchObject({ container: 'frozen', images: {}, path: 'alive.paused' });
    expect(after.current).toBeUndefined();
  });

  it('should leave a paused job paused, whose checkpoint it undoes', async () => {
    const checkpoint = new CheckpointLeavingRunning([on(3, 'dies after')]);
    const after = await live(running, new Pause([]), checkpoint, new Start([]));
    expect(after).toMatchObject({ container: 'frozen', images: {}, path: 'alive.paused' });
  });

  it.each([
    ['before it had begun', on(0, 'dies before')],
    ['while it was frozen', on(4, 'dies after')],
    ['when its image was committed', on(8, 'dies after')],
  ])(
    'lets a job run on that an engine had paused for a checkpoint which was interrupted %s',
    async (_, fate) => {
      const story = [running, new PauseByEngine([]), new EngineCheckpointLeavingRunning([fate])];
      // It is refused, and what was interrupted is put right before that.
      const after = await live(...story, new Start([]));
      expect(after).toMatchObject({ container: 'running', path: 'alive.running', awaitsResume: true });
      const resumed = await live(...story, new Start([]), new Resume([]));
      expect(resumed).toMatchObject({ container: 'running', path: 'alive.running', awaitsResume: false });
    },
  );

  it('leaves a job paused that another than the engine of the interrupted checkpoint had paused', async () => {
    const story = [running, new PauseByEngine([]), new OtherEngineCheckpoint([on(4, 'dies after')])];
    const after = await live(...story, new Start([]));
    expect(after).toMatchObject({ container: 'frozen', path: 'alive.paused', awaitsResume: false });
  });

  it('should put the root file system back after a restore that was interrupted', async () => {
    const after = await live(...imageLeft, new Create([on(endToApply, 'dies after')]), new Start([]));
    expect(after).toMatchObject({ container: 'none', rootfs: 'clean', path: 'alive.failed' });
  });

  it('should begin again where it was interrupted itself', async () => {
    const after = await live(
      ...imageLeft,
      new Create([on(endToApply, 'dies after')]),
      new Start([on(1, 'dies after')]),
      new Start([on(1, 'dies before')]),
      new Start([]),
    );
    expect(after).toMatchObject({ container: 'none', rootfs: 'clean', path: 'alive.failed' });
  });

  it('should let a job go on that it could not end', async () => {
    const checkpoint = new CheckpointWithExit([on(swap, 'dies after')]);
    const after = await live(running, checkpoint, new Pause([on(0, 'fails before')]));
    expect(after).toMatchObject({ container: 'frozen', current: 1, path: 'alive.paused' });
  });

  it('should not end a job that has run on since its image was made', async () => {
    const checkpoint = new CheckpointWithExit([on(end, 'fails before'), on(thawInUndo, 'dies after')]);
    const after = await live(running, checkpoint, new Pause([]));
    expect(after).toMatchObject({ container: 'frozen', current: 1, path: 'alive.paused' });
  });

  it('should let a held job be started whose release was interrupted', async () => {
    const start = new Start([on(release, 'dies before')]);
    const after = await live(...imageLeft, new Create([]), start, new Start([]));
    expect(after).toMatchObject({ container: 'running', held: false, path: 'alive.running' });
  });

  it('should put the root file system back before a create in the same bundle', async () => {
    const create = new Create([on(endToApply, 'dies after')]);
    // Putting it right has three effects; the second restore fails once it has applied its files, and is rolled back.
    const after = await live(...imageLeft, create, new CreateAgain([on(3 + restoreMemory, 'fails before')]));
    expect(after).toMatchObject({ container: 'created', rootfs: 'clean', path: 'alive.created' });
  });

  it('should call a job checkpointed that had just been ended', async () => {
    const checkpoint = new CheckpointWithExit([on(end, 'dies after')]);
    const { path } = await live(running, checkpoint, new Start([]));
    expect(path).toBe('alive.checkpointed');
  });

  it('should not take a root that could not be put back for the one to go back to', async () => {
    const create = new Create([on(restoreMemory, 'fails before'), on(beginReset, 'fails before')]);
    await live(...imageLeft, create, new CreateAgain([on(restoreMemory, 'fails before')]));
  });
});
