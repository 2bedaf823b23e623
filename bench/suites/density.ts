import { rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { sideBySide, type Way } from '../side-by-side.ts';
import { atMostMore, atMostTimes, type Row, type Suite } from '../suite.ts';
import {
  type Bundle,
  begin,
  checkpointTo,
  checkpointWay,
  type Field,
  givenTo,
  idle,
  imagesOf,
  makeBundle,
  openField,
} from '../workloads.ts';

const counts = [1, 10, 50, 200];

/** What one command costs on a host with so many enabled containers, and what all their checkpoints at once cost. */
export const density: Suite = async ({ runs, said }) => {
  const field = await openField({ keep: 1 });
  const jobs: Bundle[] = [];
  const rows: Row[][] = [];
  try {
    for (const count of counts) {
      said(`${count} containers`);
      while (jobs.length < count) jobs.push(await another(field, jobs.length));
      rows.push([
        await stateRow(field, count, runs),
        await oneCheckpointRow(field, jobs, runs),
        // Two hundred at a time are a sample of their own.
        await allCheckpointsRow(field, jobs, Math.min(runs, Math.ceil(200 / count))),
      ]);
    }
    return { rows: [0, 1, 2].flatMap((kind) => rows.map((each) => each[kind] as Row)) };
  } finally {
    for (const { id } of jobs)
      await field.runc.run(['delete', '--force', id], { program: field.stack.runtime });
    await field.stack.stop();
  }
};

async function another(field: Field, place: number): Promise<Bundle> {
  const id = `job-${place}`;
  const bundle = await makeBundle(field, id, { args: idle, key: id });
  await begin(field, field.tardis, bundle);
  return bundle;
}

const amid = (what: string, count: number): string => `${what}, ${count} running`;

async function stateRow({ raw, tardis, env }: Field, count: number, runs: number): Promise<Row> {
  const ways = [raw, tardis].map((program, i) => ({
    name: i ? 'tardis-runc' : 'runc',
    command: `${program} state job-0`,
  }));
  const measured = await sideBySide(ways, { runs, env });
  return atMostMore({ title: amid('`state`', count), size: count, unit: 'ms', ways: measured }, 1.5);
}

const bareOf = ({ stack }: Field, id: string): string => join(stack.dir, 'bare', id);

async function oneCheckpointRow(field: Field, jobs: readonly Bundle[], runs: number): Promise<Row> {
  const [job] = jobs as readonly [Bundle];
  const bare = bareOf(field, job.id);
  const ways: Way[] = [
    {
      name: 'runc checkpoint',
      prepare: `rm -rf ${bare}\nmkdir -p ${bare}`,
      command: `${field.raw} ${checkpointTo(bare, job.id)}`,
    },
    checkpointWay(field, job),
  ];
  const measured = await sideBySide(ways, { runs, env: field.env });
  return {
    title: amid('one checkpoint', jobs.length),
    size: jobs.length,
    unit: 'ms',
    ways: measured,
  };
}

/** runc has no bound of its own: it gets the one that Tardis has. */
async function allCheckpointsRow(field: Field, jobs: readonly Bundle[], runs: number): Promise<Row> {
  const ids = jobs.map(({ id }) => id).join('\n');
  const together = (atOnce: number, command: string): string =>
    `xargs -P ${atOnce} -I {} ${command} >/dev/null <<'END'\n${ids}\nEND`;
  const makeRoom = (place: (id: string) => string): string =>
    `rm -rf ${place('*')}\nmkdir -p ${jobs.map(({ id }) => place(id)).join(' ')}`;
  const ways: Way[] = [
    {
      name: 'runc checkpoint',
      prepare: makeRoom((id) => bareOf(field, id)),
      command: together(
        2 * availableParallelism(),
        `${field.raw} ${checkpointTo(bareOf(field, '{}'), '{}')}`,
      ),
    },
    {
      name: 'tardis-runc checkpoint',
      prepare: `rm -rf ${imagesOf(field, '*')}/[0-9]*\n${makeRoom((id) => givenTo(field, id))}`,
      command: together(jobs.length, `${field.tardis} ${checkpointTo(givenTo(field, '{}'), '{}')}`),
    },
  ];
  const measured = await sideBySide(ways, { runs, batch: 1, env: field.env });
  for (const { id } of jobs)
    for (const place of [bareOf(field, id), givenTo(field, id)])
      rmSync(place, { recursive: true, force: true });
  return atMostTimes(
    { title: `all checkpoints at once, of ${jobs.length}`, size: jobs.length, unit: 'ms', ways: measured },
    1.1,
  );
}
