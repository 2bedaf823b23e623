import { describe, expect, it } from 'vitest';
import { readOutput } from './torture-jobs.ts';
import { scheduleOf } from './torture-schedule.ts';

describe('scheduleOf', () => {
  it('draws the same steps from the same seed, and others from another', () => {
    const size = { jobs: 3, steps: 50 };
    expect(scheduleOf(7, size)).toEqual(scheduleOf(7, size));
    expect(scheduleOf(8, size).lanes).not.toEqual(scheduleOf(7, size).lanes);
  });

  it('draws a job the same steps however many jobs there are', () => {
    const { lanes } = scheduleOf(7, { jobs: 5, steps: 50 });
    expect(scheduleOf(7, { jobs: 2, steps: 50 }).lanes).toEqual(lanes.slice(0, 2));
  });

  it('draws every kind of step, of victim, and of weather within ten rounds', () => {
    const rounds = Array.from({ length: 10 }, (_, seed) => scheduleOf(seed, { jobs: 6, steps: 80 }));
    const steps = rounds.flatMap(({ lanes }) => lanes.flat());
    const blows = steps.flatMap((step) => ('blow' in step && step.blow ? [step.blow.victim] : []));
    const ops = [
      'create',
      'race',
      'checkpoint',
      'signal',
      'murder',
      'shim',
      'pause',
      'resume',
      'delete',
      'restart',
      'rest',
    ];
    expect(new Set(steps.map(({ op }) => op))).toEqual(new Set(ops));
    expect(new Set(blows)).toEqual(
      new Set(['wrapper', 'runc', 'criu', 'guardian', 'shim', 'caller', 'containerd']),
    );
    expect(new Set(rounds.flatMap(({ weather }) => weather.map(({ kind }) => kind)))).toEqual(
      new Set(['frozen', 'full', 'scratch', 'containerd']),
    );
  });
});

describe('readOutput', () => {
  it('tells the numbers, and that one is missing', () => {
    expect(readOutput(['found nothing', 'tick 1', 'tick 2'])).toMatchObject({
      numbers: [1, 2],
      broken: [],
      found: 'nothing',
    });
    expect(readOutput(['tick 4', 'tick 6']).broken).toEqual(['broken: 6 came after 4']);
    expect(readOutput(['tick 4', 'broken: 4 in memory, 3 in the file']).broken).toHaveLength(1);
  });
});
