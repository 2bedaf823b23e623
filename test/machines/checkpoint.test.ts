import { describe, expect, it } from 'vitest';
import { createActor, fromPromise, toPromise } from 'xstate';
import { checkpointMachine } from '../../src/machines/checkpoint.ts';
import { pathOf } from '../../src/machines/paths.ts';
import { walksOf } from '../support/machine-paths.ts';
import { callOf, container, image, requestOf } from '../support/machine-samples.ts';

/** Each kind of checkpoint, and its steps in their order. */
const kinds = [
  {
    title: 'with exit',
    ...{ leaveRunning: false, wasPaused: false, outcome: 'checkpointed' },
    steps: 'prepareImage freeze saveRootfs dumpMemory describeImage handOver commitImage endJob',
  },
  {
    title: 'with exit, of a paused container',
    ...{ leaveRunning: false, wasPaused: true, outcome: 'checkpointed' },
    steps: 'prepareImage freeze saveRootfs dumpMemory describeImage handOver commitImage endJob',
  },
  {
    title: 'that leaves running',
    ...{ leaveRunning: true, wasPaused: false, outcome: 'continues' },
    steps: 'prepareImage freeze saveRootfs dumpMemory thaw describeImage handOver commitImage',
  },
  {
    title: 'that leaves a paused container paused',
    ...{ leaveRunning: true, wasPaused: true, outcome: 'continues' },
    steps: 'prepareImage freeze saveRootfs dumpMemory describeImage handOver commitImage',
  },
].flatMap(({ steps, title, ...kind }) => [
  { ...kind, title, image, steps: steps.split(' ') },
  {
    ...kind,
    title: `${title}, whose image is verified`,
    image: { ...image, isToBeVerified: true },
    steps: steps.replace('commitImage', 'verifyImage commitImage').split(' '),
  },
]);

type Kind = Pick<(typeof kinds)[number], 'leaveRunning' | 'wasPaused' | 'image'>;

const inputOf = ({ leaveRunning, wasPaused }: Omit<Kind, 'image'>) => ({
  container,
  call: callOf('runc', 'checkpoint', 'job'),
  request: requestOf(leaveRunning),
  wasPaused,
  life: { epoch: 1 },
});

/** The services in the order they ran, with what each was given, on a machine that really runs. */
async function run(kind: Kind, ...failing: string[]) {
  const ran: { name: string; input: unknown }[] = [];
  const service = (name: string) =>
    fromPromise<never>(async ({ input }) => {
      ran.push({ name, input });
      if (failing.includes(name)) throw Object.assign(new Error(`${name} failed`), { code: 'broken' });
      return (name === 'prepareImage' ? kind.image : undefined) as never;
    });
  const names = Object.keys(checkpointMachine.implementations.actors);
  const actors = Object.fromEntries(names.map((name) => [name, service(name)]));
  const actor = createActor(checkpointMachine.provide({ actors: actors as never }), { input: inputOf(kind) });
  actor.start();
  const output = await toPromise(actor);
  return { ran, output, last: pathOf(actor.getSnapshot().value) };
}

describe.each(kinds)('a checkpoint $title', ({ steps, outcome, ...kind }) => {
  const { image } = kind;
  const walks = walksOf(checkpointMachine, inputOf(kind), { prepareImage: [image] });
  const good = walks.filter(({ ran }) => !ran.some((step) => step.endsWith(' fails')));
  const bad = walks.filter((walk) => !good.includes(walk));

  it('should have one way to succeed', () => {
    expect(good.map(({ ran }) => ran)).toEqual([steps]);
    expect(good[0]?.last.value).toBe(outcome);
    expect(good[0]?.last.output).toEqual({ outcome, image });
  });

  it('should be undone, whichever step fails first, and fail with that reason', () => {
    const expected = steps.flatMap((step, index) => {
      const ran = [...steps.slice(0, index), `${step} fails`];
      return [
        [...ran, 'undo'],
        [...ran, 'undo fails'],
      ];
    });
    expect(bad.map(({ ran }) => ran.join(' ')).sort()).toEqual(expected.map((ran) => ran.join(' ')).sort());
    for (const { ran, last } of bad) {
      const [reason] = ran.filter((step) => step.endsWith(' fails'));
      expect(last.value).toBe('failed');
      expect(last.output).toMatchObject({
        outcome: 'failed',
        failure: { message: reason?.replace(/fails$/, 'failed') },
      });
    }
  });

  it('should not end the job before its image is committed', () => {
    for (const { ran } of walks) {
      if (!ran.some((step) => step.startsWith('endJob'))) continue;
      expect(ran.indexOf('commitImage')).toBeGreaterThan(-1);
      expect(ran.indexOf('commitImage')).toBeLessThan(ran.findIndex((step) => step.startsWith('endJob')));
      expect(kind.leaveRunning).toBe(false);
    }
  });

  it('should thaw right after the dump, and only a container that goes on and had not been paused', () => {
    for (const { ran } of walks) {
      const dumped = ran.indexOf('dumpMemory');
      const thawed = ran.findIndex((step) => step.startsWith('thaw'));
      const mustThaw = kind.leaveRunning && !kind.wasPaused && dumped !== -1;
      expect(thawed).toBe(mustThaw ? dumped + 1 : -1);
    }
  });

  it('should give every step the request, and the image once it has a place', async () => {
    const { ran, output, last } = await run(kind);
    expect(ran.map(({ name }) => name)).toEqual(steps);
    for (const { name, input } of ran) {
      expect(input).toEqual({ ...inputOf(kind), ...(name === 'prepareImage' ? {} : { image }) });
    }
    expect([last, output]).toEqual([outcome, { outcome, image }]);
  });

  it.each(steps)('should undo with all it needs to know where %s fails', async (failing) => {
    const { ran, output, last } = await run(kind, failing, 'undo');
    const known = failing === 'prepareImage' ? undefined : image;
    expect(ran.at(-1)).toEqual({ name: 'undo', input: { ...inputOf(kind), image: known } });
    expect(ran.map(({ name }) => name)).toEqual([...steps.slice(0, steps.indexOf(failing) + 1), 'undo']);
    expect(last).toBe('failed');
    expect(output).toEqual({
      outcome: 'failed',
      failure: { message: `${failing} failed`, code: 'broken' },
    });
  });
});
