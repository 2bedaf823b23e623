import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { batchOf, bothKinds, forEachLoad, type Load, sizeOf } from '../loads.ts';
import { sideBySide } from '../side-by-side.ts';
import { atMostTimes, type Row } from '../suite.ts';
import {
  again,
  asPipes,
  type Bundle,
  begin,
  type Field,
  givenTo,
  holding,
  imagesOf,
  makeBundle,
  quietly,
  restoreWay,
  timeIn,
  writeFiles,
} from '../workloads.ts';

/** Measures the restores of one job, each into a new container with a root file system of its own. */
export async function restoreRow(field: Field, id: string, load: Load, runs: number): Promise<Row> {
  const { raw, tardis, env, stack } = field;
  const job = { args: holding(load.mebibytes), key: id };
  const first = await makeBundle(field, `${id}-first`, job);
  writeFiles(first, load.files, load.bytes);
  await begin(field, tardis, first, load.mebibytes);
  const given = givenTo(field, id);
  await quietly(
    field,
    `mkdir -p ${given}\n${tardis} checkpoint --image-path ${given}/image --work-path ${given} ${first.id}\n${tardis} delete --force ${first.id}\numount ${first.rootfs}`,
  );
  const next = await makeBundle(field, id, job);
  const image = join(imagesOf(field, id), '1');
  // The extraction is of the same archive, and the memory the same files: those that Tardis has made.
  const bare = join(stack.dir, 'bare', id);
  cpSync(join(image, 'checkpoint'), join(bare, 'checkpoint'), { recursive: true });
  cpSync(join(image, 'rootfs-diff.tar'), join(bare, 'rootfs-diff.tar'));
  const ways = [
    {
      name: 'tar --extract, runc restore',
      prepare: again(field, next),
      command: asPipes(bareRestore(raw, next, bare)),
    },
    restoreWay(field, next),
  ];
  const measured = await sideBySide(ways, { runs, batch: batchOf(load), env });
  const beside = {
    'validation, ms': timeIn(next, 'restoring/validating'),
    'files, ms': timeIn(next, 'restoring/savingRollback', 'restoring/applyingRootfs'),
    'memory, ms': timeIn(next, 'restoring/restoringMemory'),
  };
  await field.runc.run(['delete', '--force', id], { program: stack.runtime });
  for (const place of [bare, given, imagesOf(field, id)]) rmSync(place, { recursive: true, force: true });
  return atMostTimes({ title: load.title, size: sizeOf(load), unit: 'ms', ways: measured, beside }, 1.15);
}

const bareRestore = (raw: string, { id, path, rootfs }: Bundle, bare: string): string =>
  `{ tar --extract --xattrs --xattrs-include='*' --same-permissions --same-owner --file ${bare}/rootfs-diff.tar --directory ${rootfs} && ` +
  `${raw} restore --detach --file-locks --image-path ${bare}/checkpoint --work-path ${bare} --bundle ${path} ${id}; }`;

/** A restore up to the job's first instruction, against a bare `runc restore` and the extraction of the same changes. */
export const restore = forEachLoad(bothKinds, restoreRow);
