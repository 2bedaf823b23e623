import { describe, expect, it } from 'vitest';
import { createActor, fromPromise, toPromise } from 'xstate';
import { pathOf } from '../../src/machines/paths.ts';
import { type RestoreInput, restoreMachine } from '../../src/machines/restore.ts';
import { walksOf } from '../support/machine-paths.ts';
import { callOf, container, image } from '../support/machine-samples.ts';

const input = { container, image, fallbacks: [], epoch: 1, call: callOf('runc', 'create', 'job') };
const walks = walksOf(restoreMachine, input).map(({ ran, last }) => ({ ran, last, end: pathOf(last.value) }));
const fails = (step: string): boolean => step.endsWith(' fails');
const nameOf = (step: string): string => step.replace(/ fails$/, '');
const firstFailure = (ran: readonly string[]): string | undefined => ran.find(fails);

/** What a failure at each step leads to; `?` marks a step that may fail and change nothing. */
const written = {
  restored: ['validateImage, saveRollback, applyRootfs, restoreMemory, hold, dropRollback?'],
  rolledBack: [
    'validateImage fails, markImage?',
    'validateImage, saveRollback fails, markImage?',
    'validateImage, saveRollback, applyRootfs fails, removeLeftovers, resetRootfs, dropRollback?, markImage?',
    'validateImage, saveRollback, applyRootfs, restoreMemory fails, removeLeftovers, resetRootfs, dropRollback?, markImage?',
    'validateImage, saveRollback, applyRootfs, restoreMemory, hold fails, removeLeftovers, resetRootfs, dropRollback?, markImage?',
  ],
  failed: [
    'validateImage, saveRollback, applyRootfs fails, removeLeftovers fails',
    'validateImage, saveRollback, applyRootfs fails, removeLeftovers, resetRootfs fails',
    'validateImage, saveRollback, applyRootfs, restoreMemory fails, removeLeftovers fails',
    'validateImage, saveRollback, applyRootfs, restoreMemory fails, removeLeftovers, resetRootfs fails',
    'validateImage, saveRollback, applyRootfs, restoreMemory, hold fails, removeLeftovers fails',
    'validateImage, saveRollback, applyRootfs, restoreMemory, hold fails, removeLeftovers, resetRootfs fails',
  ],
};

/** Both meanings of every `?`. */
const spelledOut = (line: string): string[] =>
  line.includes('?') ? ['', ' fails'].flatMap((end) => spelledOut(line.replace('?', end))) : [line];

describe('a restore with an older image to fall back on', () => {
  const older = { generation: 2, directory: '/images/job-key/2' };

  /** Runs a restore whose services named here fail on these generations. */
  async function run(failing: Record<string, number[]>) {
    const ran: string[] = [];
    const service = (name: string) =>
      fromPromise<never, RestoreInput>(async ({ input: { image: tried } }) => {
        ran.push(`${name} ${tried.generation}`);
        if (failing[name]?.includes(tried.generation)) throw new Error(`${name} ${tried.generation} failed`);
        return undefined as never;
      });
    const names = Object.keys(restoreMachine.implementations.actors);
    const actors = Object.fromEntries(names.map((name) => [name, service(name)]));
    const machine = restoreMachine.provide({ actors: actors as never });
    const actor = createActor(machine, { input: { ...input, fallbacks: [older] } }).start();
    const output = await toPromise(actor);
    return { ran, output };
  }

  it('should mark an image that is refused, and restore the one before it', async () => {
    const { ran, output } = await run({ validateImage: [3] });
    expect(ran).toEqual([
      ...['validateImage 3', 'markImage 3', 'validateImage 2', 'saveRollback 2', 'applyRootfs 2'],
      ...['restoreMemory 2', 'hold 2', 'dropRollback 2'],
    ]);
    expect(output).toEqual({ outcome: 'restored', image: older });
  });

  it('should start from scratch, with the last reason, where all are refused', async () => {
    const { ran, output } = await run({ validateImage: [3, 2], markImage: [3] });
    expect(ran).toEqual(['validateImage 3', 'markImage 3', 'validateImage 2', 'markImage 2']);
    expect(output).toMatchObject({ outcome: 'rolledBack', failure: { message: 'validateImage 2 failed' } });
  });

  it('should not try another image once this one has been touched', async () => {
    const { ran, output } = await run({ restoreMemory: [3] });
    expect(ran.filter((step) => step.endsWith('2'))).toEqual([]);
    expect(output).toMatchObject({ outcome: 'rolledBack', failure: { message: 'restoreMemory 3 failed' } });
  });
});

describe('a restore', () => {
  it.each(Object.entries(written))(
    'should end in %s by the ways written down here, and no others',
    (end, lines) => {
      const found = walks.filter((walk) => walk.end === end).map(({ ran }) => ran.join(', '));
      expect(found.sort()).toEqual(lines.flatMap(spelledOut).sort());
    },
  );

  it('should do nothing after a failure but roll back and mark the image', () => {
    const after = new Set(['removeLeftovers', 'resetRootfs', 'dropRollback', 'markImage']);
    for (const { ran, end } of walks.filter(({ ran }) => ran.some(fails))) {
      const rest = ran.slice(ran.findIndex(fails) + 1).map(nameOf);
      expect(rest.filter((step) => !after.has(step))).toEqual([]);
      if (end === 'rolledBack') expect(rest.at(-1)).toBe('markImage');
    }
  });

  it('should not roll back where the root file system was not touched', () => {
    const early = walks.filter(({ ran }) => !ran.some((step) => nameOf(step) === 'applyRootfs'));
    expect(early.length).toBeGreaterThan(0);
    for (const { ran, end } of early) {
      expect(end).toBe('rolledBack');
      expect(ran).not.toContain('removeLeftovers');
      expect(ran).not.toContain('resetRootfs');
    }
  });

  it("should remove runc's leftovers before it puts the root file system back", () => {
    const reset = walks.filter(({ ran }) => ran.some((step) => nameOf(step) === 'resetRootfs'));
    expect(reset.length).toBeGreaterThan(0);
    for (const { ran } of reset) {
      expect(ran.indexOf('removeLeftovers')).toBeGreaterThan(-1);
      expect(ran.findIndex((step) => nameOf(step) === 'resetRootfs')).toBe(
        ran.indexOf('removeLeftovers') + 1,
      );
    }
  });

  it('should keep what a rollback needs until the rollback is done', () => {
    for (const { ran } of walks.filter(({ ran }) => ran.some((step) => nameOf(step) === 'dropRollback'))) {
      const drop = ran.findIndex((step) => nameOf(step) === 'dropRollback');
      expect(['hold', 'resetRootfs']).toContain(ran[drop - 1]);
    }
  });

  it('should never call a container rolled back whose rollback failed', () => {
    const bad = walks.filter(({ ran }) =>
      ran.some((step) => /^(removeLeftovers|resetRootfs) fails$/.test(step)),
    );
    expect(bad).toHaveLength(6);
    for (const { ran, end, last } of bad) {
      expect(end).toBe('failed');
      const [first, second] = ran.filter(fails).map(nameOf);
      expect(last.output).toEqual({
        outcome: 'failed',
        failure: {
          message: `the restore failed (${first} failed) and so did its rollback: ${second} failed`,
          code: 'Error',
        },
      });
    }
  });

  it('should keep the first failure as the reason of a rollback', () => {
    for (const { ran, last } of walks.filter(({ end }) => end === 'rolledBack')) {
      const message = `${nameOf(firstFailure(ran) as string)} failed`;
      expect(last.output).toEqual({ outcome: 'rolledBack', failure: { message, code: 'Error' } });
    }
  });

  it('should hold the container whatever becomes of the rollback that is no longer needed', () => {
    for (const { ran, last } of walks.filter(({ end }) => end === 'restored')) {
      expect(ran.map(nameOf).slice(0, 5).join()).toBe(ran.slice(0, 5).join());
      expect(last.output).toEqual({ outcome: 'restored', image });
    }
  });

  it('should give every step the image, and the mark the reason', async () => {
    const given: Record<string, unknown> = {};
    const service = (name: string) =>
      fromPromise<never>(async ({ input }) => {
        given[name] = input;
        if (name === 'hold') throw new Error('hold failed');
        return undefined as never;
      });
    const names = Object.keys(restoreMachine.implementations.actors);
    const actors = Object.fromEntries(names.map((name) => [name, service(name)]));
    const actor = createActor(restoreMachine.provide({ actors: actors as never }), { input }).start();
    await toPromise(actor);
    const expected = Object.fromEntries(names.map((name) => [name, input]));
    const failure = { message: 'hold failed', code: 'Error' };
    expect(given).toEqual({ ...expected, markImage: { ...input, failure } });
  });
});
