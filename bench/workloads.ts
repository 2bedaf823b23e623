import { randomFillSync } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type DirectRunc, directRunc } from '../test/support/direct-runc.ts';
import { run } from '../test/support/run.ts';
import { type Stack, startStack } from '../test/support/stack.ts';
import { waitFor } from '../test/support/wait.ts';
import type { Way } from './side-by-side.ts';
import { spreadOf } from './statistics.ts';

/** A private place for containers without an engine: runc, and tardis-runc, on overlay bundles. */
export type Field = {
  stack: Stack;
  runc: DirectRunc;
  /** `runc --root ...`, for a command line. */
  raw: string;
  /** `tardis-runc --root ...` on the same containers. */
  tardis: string;
  env: Record<string, string>;
};

export async function openField(config: Record<string, unknown> = {}): Promise<Field> {
  const stack = await startStack({ rootJobsOnly: true, config });
  const runc = await directRunc(stack);
  const raw = await realRunc();
  return {
    stack,
    runc,
    raw: `${raw} --root ${runc.root}`,
    tardis: `${stack.runtime} --root ${runc.root}`,
    env: stack.env,
  };
}

async function realRunc(): Promise<string> {
  const { stdout } = await run('sh', ['-c', 'command -v runc']);
  return stdout.trim();
}

export type Job = {
  args: string[];
  /** Of a job that Tardis looks after; undefined for one that it leaves alone. */
  key?: string;
  env?: Record<string, string>;
};

/** A bundle whose root file system is an overlay, as an engine makes them. */
export type Bundle = { id: string; path: string; rootfs: string; upper: string };

export async function makeBundle(
  { stack, runc }: Field,
  id: string,
  { args, key, env = {} }: Job,
): Promise<Bundle> {
  const settings = key === undefined ? {} : { TARDIS_ENABLE: '1', TARDIS_CHECKPOINT_KEY: key };
  const path = await runc.bundle(id, { args, env: { ...settings, ...env } });
  const rootfs = join(path, 'rootfs');
  const lower = join(stack.dir, 'lower');
  if (!existsSync(lower)) await run('cp', ['-a', rootfs, lower]);
  await run('rm', ['-rf', rootfs]);
  const bundle = { id, path, rootfs, upper: join(path, 'upper') };
  for (const directory of [rootfs, bundle.upper, join(path, 'work')]) mkdirSync(directory);
  await run('sh', ['-c', mountRootfs(stack, bundle)]);
  return bundle;
}

const mountRootfs = ({ dir }: Stack, { path, rootfs, upper }: Bundle): string =>
  `mount -t overlay overlay -o lowerdir=${join(dir, 'lower')},upperdir=${upper},workdir=${join(path, 'work')} ${rootfs}`;

/** Shell lines that give a bundle a new root file system, as an engine does for a new container. */
const freshRootfs = ({ stack }: Field, bundle: Bundle): string =>
  [
    `umount ${bundle.rootfs}`,
    `rm -rf ${bundle.upper} ${join(bundle.path, 'work')}`,
    `mkdir ${bundle.upper} ${join(bundle.path, 'work')}`,
    mountRootfs(stack, bundle),
  ].join('\n');

/**
 * Holds so many MiB of memory in one process, and counts in another.
 *
 * @param source a command that fills them; incompressible where there is none.
 */
export const holding = (mebibytes: number, source?: string): string[] => [
  'sh',
  '-c',
  `${source === undefined ? 'dd if=/dev/urandom' : `${source} | dd`} iflag=fullblock bs=${mebibytes}M count=1 2>/dev/null | sleep 100000 & i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done`,
];

export const idle = ['sleep', '100000'];

/** Runs shell lines; a container that they begin keeps nothing of this process's open. */
export const quietly = ({ env }: Pick<Field, 'env'>, lines: string): Promise<unknown> =>
  run('sh', ['-c', `{ ${lines}\n} >/dev/null 2>&1 </dev/null`], { env });

/** Creates and starts a container with pipes, and waits until it holds its memory. */
export async function begin(
  { env, stack }: Field,
  program: string,
  { id, path }: Bundle,
  mebibytes = 0,
): Promise<void> {
  const create = `(: | { ${program} create --bundle ${path} --pid-file ${path}/pid ${id}; echo $? >${path}/created; } 2>&1 | cat >>${path}/output) >/dev/null 2>&1 &`;
  await run('sh', ['-c', create], { env });
  const status = await waitFor(
    `${id} to be created`,
    () => existsSync(join(path, 'created')) && readFileSync(join(path, 'created'), 'utf8'),
  );
  if (status.trim() !== '0')
    throw new Error(`cannot create ${id}: ${readFileSync(join(path, 'output'), 'utf8')}${stack.logs()}`);
  await run('sh', ['-c', `exec ${program} start ${id}`], { env });
  const init = readFileSync(join(path, 'pid'), 'utf8').trim();
  if (mebibytes > 0)
    await waitFor(`${id} to hold ${mebibytes} MiB`, () => residentBelow(init) >= mebibytes, {
      timeoutMs: 120_000,
    });
}

/** MiB resident in the children of a process. */
export function residentBelow(pid: string): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(Boolean);
  const kibibytes = children.map((child) =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${child}/status`, 'utf8'))?.[1] ?? 0),
  );
  return kibibytes.reduce((sum, each) => sum + each, 0) / 1024;
}

/** Writes files of random bytes into a root file system, a hundred a directory. */
export function writeFiles({ rootfs }: Pick<Bundle, 'rootfs'>, count: number, bytes: number): void {
  const block = Buffer.alloc(bytes);
  for (let i = 0; i < count; i++) {
    const directory = join(rootfs, 'data', String(Math.floor(i / 100)));
    if (i % 100 === 0) mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, `file-${i}`), randomFillSync(block));
  }
}

/** Shell lines that keep what a container's state file says of the run before. */
const keepHistory = ({ path, id }: Bundle): string =>
  `cp ${path}/tardis.json ${path}/../${id}.$(date +%s%N).history 2>/dev/null || :`;

/** What a container spent in some of its states (`checkpointing/dumping`) in each run, in milliseconds: the median. */
export function timeIn({ path, id }: Bundle, ...states: string[]): number {
  const kept = readdirSync(dirname(path)).filter(
    (name) => name.startsWith(`${id}.`) && name.endsWith('.history'),
  );
  const files = [join(path, 'tardis.json'), ...kept.map((name) => join(dirname(path), name))];
  const times = files.flatMap((file) => {
    const { history } = JSON.parse(readFileSync(file, 'utf8')) as { history: { from: string; ms: number }[] };
    const last = states.map((state) => history.findLast(({ from }) => from.endsWith(state))?.ms ?? 0);
    const sum = last.reduce((total, each) => total + each, 0);
    return sum > 0 ? [sum] : [];
  });
  return spreadOf(times).median;
}

/** A command whose container's streams are pipes, as those of the dumped one were; nobody waits for their end. */
export const asPipes = (command: string): string =>
  `rm -f $$.out; mkfifo $$.out; cat $$.out >/dev/null & : | ${command} >$$.out 2>&1; rm $$.out`;

const createAsPipes = (program: string, { id, path }: Bundle): string =>
  asPipes(`${program} create --bundle ${path} ${id}`);

export const imagesOf = ({ stack }: Field, key: string): string => join(stack.checkpointRoot, key);

/** Where a checkpoint of Tardis puts the caller's own copy. */
export const givenTo = ({ stack }: Field, id: string): string => join(stack.dir, 'given', id);

export const checkpointTo = (place: string, id: string): string =>
  `checkpoint --leave-running --image-path ${place}/image --work-path ${place} ${id}`;

/** A checkpoint of a container whose key is its id. */
export function checkpointWay(field: Field, bundle: Bundle): Way {
  const { id } = bundle;
  const given = givenTo(field, id);
  return {
    name: 'tardis-runc checkpoint',
    // What is older goes as garbage with a commit: here before it, as the other way's does.
    prepare: `${keepHistory(bundle)}\nrm -rf ${given} ${imagesOf(field, id)}/[0-9]*\nmkdir -p ${given}`,
    command: `${field.tardis} ${checkpointTo(given, id)}`,
  };
}

/** Shell lines that make room for a new container with the same id. */
export const again = (field: Field, bundle: Bundle): string =>
  `${keepHistory(bundle)}\n${field.tardis} delete --force ${bundle.id}\n${freshRootfs(field, bundle)}`;

export const restoreWay = (field: Field, bundle: Bundle): Way => ({
  name: 'tardis-runc create, start',
  prepare: again(field, bundle),
  command: `${createAsPipes(field.tardis, bundle)}\n${field.tardis} start ${bundle.id}`,
});
