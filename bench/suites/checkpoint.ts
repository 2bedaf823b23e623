import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { batchOf, bothKinds, forEachLoad, type Load, sizeOf } from '../loads.ts';
import { sideBySide } from '../side-by-side.ts';
import { atMostTimes, type Row } from '../suite.ts';
import {
  begin,
  checkpointTo,
  checkpointWay,
  type Field,
  givenTo,
  holding,
  imagesOf,
  makeBundle,
  timeIn,
  writeFiles,
} from '../workloads.ts';

/** Measures the checkpoints of one job, which runs on each time, and removes it. */
export async function checkpointRow(field: Field, id: string, load: Load, runs: number): Promise<Row> {
  const { raw, tardis, env, stack } = field;
  const bundle = await makeBundle(field, id, { args: holding(load.mebibytes), key: id });
  writeFiles(bundle, load.files, load.bytes);
  await begin(field, tardis, bundle, load.mebibytes);
  const bare = join(stack.dir, 'bare', id);
  const ways = [
    {
      name: 'runc checkpoint, cp -a',
      prepare: `rm -rf ${bare}\nmkdir -p ${bare}`,
      command: `${raw} ${checkpointTo(bare, id)}\ncp -a ${bundle.upper} ${bare}/files`,
    },
    checkpointWay(field, bundle),
  ];
  const measured = await sideBySide(ways, { runs, batch: batchOf(load), env });
  const row = {
    title: load.title,
    size: sizeOf(load),
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
  for (const place of [bare, givenTo(field, id), imagesOf(field, id)])
    rmSync(place, { recursive: true, force: true });
  return atMostTimes(row, 1.1);
}

/** A checkpoint against a bare `runc checkpoint` of the same container and a `cp -a` of the same changed files. */
export const checkpoint = forEachLoad(bothKinds, checkpointRow, { keep: 1 });
