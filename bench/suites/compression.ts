import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../test/support/run.ts';
import { type Measured, sideBySide, type Way } from '../side-by-side.ts';
import type { Row, Suite } from '../suite.ts';
import {
  again,
  begin,
  checkpointTo,
  type Field,
  givenTo,
  holding,
  imagesOf,
  makeBundle,
  openField,
  quietly,
  restoreWay,
} from '../workloads.ts';

const mebibytes = 512;
const levels = [0, 1, 3];

const kinds = [
  { title: `${mebibytes} MiB of random bytes`, source: undefined },
  // zstd makes a third of it.
  { title: `${mebibytes} MiB of random numbers as text`, source: 'od -An -v -td2 /dev/urandom' },
];

/** The same job with its memory compressed, or not, onto a disk that is not slow. */
export const compression: Suite = async ({ runs, said }) => {
  const field = await openField({ keep: 1 });
  const rows: Row[] = [];
  try {
    for (const [i, { title, source }] of kinds.entries()) {
      said(title);
      rows.push(...(await rowsOf(field, `job-${i}`, title, source, runs)));
    }
    return { rows };
  } finally {
    await field.stack.stop();
  }
};

async function rowsOf(
  field: Field,
  id: string,
  title: string,
  source: string | undefined,
  runs: number,
): Promise<Row[]> {
  const { tardis, env, stack } = field;
  const job = { args: holding(mebibytes, source), key: id };
  const first = await makeBundle(field, `${id}-first`, job);
  await begin(field, tardis, first, mebibytes);
  const given = givenTo(field, id);
  const emptied = `rm -rf ${given} ${imagesOf(field, id)}/[0-9]*\nmkdir -p ${given}`;
  const atLevel = (level: number, command: string): string =>
    `env TARDIS_COMPRESSION_LEVEL=${level} ${command}`;
  const checkpoint = (level: number): string => atLevel(level, `${tardis} ${checkpointTo(given, first.id)}`);
  const checkpoints = await sideBySide(
    levels.map((level) => ({ name: nameOf(level), prepare: emptied, command: checkpoint(level) })),
    { runs, batch: 3, env },
  );

  const kept = (level: number): string => join(stack.dir, 'kept', `${id}-${level}`);
  const sizes: number[] = [];
  await quietly(field, `mkdir -p ${join(stack.dir, 'kept')}`);
  for (const level of levels) {
    await quietly(field, `${emptied}\n${checkpoint(level)}\ncp -a ${imagesOf(field, id)} ${kept(level)}`);
    const { stdout } = await run('du', ['--bytes', '--summarize', join(kept(level), 'current/checkpoint')]);
    sizes.push(Number.parseInt(stdout, 10));
  }
  await quietly(field, `${tardis} delete --force ${first.id}\numount ${first.rootfs}`);

  const next = await makeBundle(field, id, job);
  const restored = restoreWay(field, next).command;
  const ways: Way[] = levels.map((level) => ({
    name: nameOf(level),
    prepare: `${again(field, next)}\nrm -rf ${imagesOf(field, id)}\ncp -al ${kept(level)} ${imagesOf(field, id)}`,
    command: restored,
  }));
  const restores = await sideBySide(ways, { runs, batch: 3, env });
  await field.runc.run(['delete', '--force', id], { program: stack.runtime });
  for (const place of [given, imagesOf(field, id), ...levels.map(kept)])
    rmSync(place, { recursive: true, force: true });
  return [
    { title: `checkpoint: ${title}`, unit: 'ms', ways: checkpoints, beside: besides(sizes, checkpoints) },
    { title: `restore: ${title}`, unit: 'ms', ways: restores, beside: besides(sizes, restores) },
  ];
}

const nameOf = (level: number): string => (level === 0 ? 'as it is' : `zstd, level ${level}`);

/** How large the images are, and how slow their place must be for a level to take less time in all than none. */
function besides(sizes: readonly number[], measured: readonly Measured[]): Record<string, number> {
  const [plain = 0] = sizes;
  const base = measured[0]?.median ?? 0;
  return Object.fromEntries(
    levels.flatMap((level, i) => {
      const size = sizes[i] ?? 0;
      const more = (measured[i]?.median ?? 0) - base;
      const image: [string, number] = [`image at level ${level}, MiB`, size / 2 ** 20];
      // bytes / ms are kB/s; where it takes less time anyway, there is no such place.
      const slow: [string, number] = [`level ${level} wins below, MB/s`, (plain - size) / more / 1000];
      return level === 0 || more <= 0 ? [image] : [image, slow];
    }),
  );
}
