import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { sideBySide } from '../side-by-side.ts';
import { atMostTimes, type Row, type Suite } from '../suite.ts';
import { begin, type Field, holding, makeBundle, openField, timeIn, writeFiles } from '../workloads.ts';

/** What a job holds, and what it has written. */
export type Load = { title: string; mebibytes: number; files: number };

export const loads: Load[] = [
  { title: '64 MiB', mebibytes: 64, files: 0 },
  { title: '512 MiB', mebibytes: 512, files: 0 },
  { title: '2 GiB', mebibytes: 2048, files: 0 },
  { title: '20,000 files of 4 KiB', mebibytes: 1, files: 20_000 },
];

/** A checkpoint against a bare `runc checkpoint` of the same container and a `cp -a` of the same changed files. */
export const checkpoint: Suite = async ({ runs, said }) => {
  const field = await openField({ keep: 1 });
  const rows: Row[] = [];
  try {
    for (const [i, load] of loads.entries()) {
      said(load.title);
      rows.push(await checkpointRow(field, `job-${i}`, load, runs));
    }
    return { rows, curves: [] };
  } finally {
    await field.stack.stop();
  }
};

/** Measures the checkpoints of one job, which runs on each time, and removes it. */
export async function checkpointRow(field: Field, id: string, load: Load, runs: number): Promise<Row> {
  const { raw, tardis, env, stack } = field;
  const bundle = await makeBundle(field, id, { args: holding(load.mebibytes), key: id });
  writeFiles(bundle, load.files, 4096);
  await begin(field, tardis, bundle, load.mebibytes);
  const bare = join(stack.dir, 'bare', id);
  const given = join(stack.dir, 'given', id);
  const images = join(stack.checkpointRoot, id);
  const checkpointTo = (place: string) =>
    `checkpoint --leave-running --image-path ${place}/image --work-path ${place} ${id}`;
  const ways = [
    {
      name: 'runc checkpoint, cp -a',
      prepare: `rm -rf ${bare}\nmkdir -p ${bare}`,
      command: `${raw} ${checkpointTo(bare)}\ncp -a ${bundle.upper} ${bare}/files`,
    },
    {
      name: 'tardis-runc checkpoint',
      // What is older goes as garbage with a commit: here before it, as the other way's does.
      prepare: `rm -rf ${given} ${images}/[0-9]*\nmkdir -p ${given}`,
      command: `${tardis} ${checkpointTo(given)}`,
    },
  ];
  const measured = await sideBySide(ways, { runs, batch: load.mebibytes > 1000 ? 2 : 5, env });
  const row = {
    title: load.title,
    unit: 'ms' as const,
    ways: measured,
    beside: {
      'frozen, ms': timeIn(
        bundle,
        ...['freezing', 'savingRootfs', 'dumping', 'thawing'].map((step) => `checkpointing/${step}`),
      ),
      'digests, ms': timeIn(bundle, 'checkpointing/describing'),
      'onto the disk, ms': timeIn(bundle, 'checkpointing/committing'),
    },
  };
  await field.runc.run(['delete', '--force', id], { program: stack.runtime });
  for (const place of [bare, given, images]) rmSync(place, { recursive: true, force: true });
  return atMostTimes(row, 1.1);
}
