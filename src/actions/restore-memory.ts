import { join } from 'node:path';
import fs from 'fs-extra';
import type { RestoreInput } from '../machines/restore.ts';
import type { RuncCall } from '../machines/vocabulary.ts';
import { keepingCgroup2Options } from './cgroup2-options.ts';
import { lastCriuErrors, lastLine } from './criu-log.ts';
import { writeCriuOptions } from './criu-options.ts';
import { namingFullDisk } from './full-disk.ts';
import type { Host } from './host.ts';
import { endLeftCriu } from './left-criu.ts';
import { readManifest } from './manifest.ts';
import { readManifestKeys } from './manifest-keys.ts';
import { Problem, reasonOf } from './problem.ts';
import { runcForTardis } from './runc.ts';
import { dropScratch, freshScratch } from './scratch.ts';
import { cgroupRootOptions } from './unified-cgroup.ts';

/**
 * Restores the image's memory as this container, every task stopped.
 *
 * runc gets a log of its own: an error line in the caller's would be shown as the `create`'s, although the
 * container then starts from scratch. `--no-subreaper`: the init's new parent is the shim (as containerd's own
 * restore has it). The container's standard streams are the wrapper's, handed on untouched.
 *
 * Memory that was compressed is expanded on the host's own disk first, and removed from there again.
 *
 * @throws Problem `restore` with CRIU's reason; `image-compression`, `disk-full`.
 */
export async function restoreMemory(host: Host, input: RestoreInput): Promise<void> {
  const { container, image } = input;
  const { dump, compressed } = readManifest(image.directory, readManifestKeys(host.config.manifestKeys));
  const files = join(image.directory, 'checkpoint');
  if (!compressed) return restoreFrom(files, dump.flags, host, input);
  try {
    const expanded = freshScratch(host, container);
    const { expandDump } = await import('./compression.ts');
    await namingFullDisk(host.config.scratchDir, () => expandDump(files, expanded, compressed), 'scratchDir');
    await restoreFrom(expanded, dump.flags, host, input);
  } finally {
    dropScratch(host, container);
  }
}

async function restoreFrom(
  files: string,
  flags: readonly string[],
  host: Host,
  { container, call }: RestoreInput,
): Promise<void> {
  const work = join(container.bundle, 'tardis-restore');
  await fs.emptyDir(work);
  const HOME = writeCriuOptions(
    container.bundle,
    'restore',
    flags.includes('--tcp-established'),
    cgroupRootOptions(container, call),
  );
  host.watch?.tells(() => lastLine(join(work, 'restore.log')));
  try {
    const { bundle, id } = container;
    const argv = restoreArgv({ ...call, bundle, id, work, files, flags });
    await keepingCgroup2Options(host, () => runcForTardis(host, argv, { env: { HOME }, stdio: 'inherit' }));
  } catch (error) {
    await endLeftCriu(work);
    const words = restoreErrors(work) ?? reasonOf(error);
    throw new Problem('restore', `CRIU could not restore the image: ${words}`, { cause: error });
  }
}

/** Of a `runc restore`: its container, its bundle, and where CRIU's files and its logs are. */
interface RestoreWords extends Pick<RuncCall, 'globals' | 'restoreFlags'> {
  readonly id: string;
  readonly bundle: string;
  readonly files: string;
  readonly work: string;
  /** Those of the dump. */
  readonly flags: readonly string[];
}

/** What runc is told to restore an image, and leave it to itself. */
export const restoreArgv = ({
  globals,
  restoreFlags,
  id,
  bundle,
  files,
  work,
  flags,
}: RestoreWords): string[] => [
  ...globals,
  ...['--log', logIn(work), '--log-format', 'json', 'restore', '--detach', '--no-subreaper'],
  ...['--image-path', files, '--work-path', work],
  ...['--bundle', bundle],
  ...restoreFlags,
  ...flags,
  id,
];

/** Why a restore failed, by CRIU's log, or else by runc's. */
export const restoreErrors = (work: string): string | undefined =>
  lastCriuErrors(join(work, 'restore.log')) ?? lastLogMessage(logIn(work));

const logIn = (work: string): string => join(work, 'runc.log');

function lastLogMessage(log: string): string | undefined {
  try {
    const lines = fs.readFileSync(log, 'utf8').trim().split('\n');
    return (JSON.parse(lines.at(-1) ?? '') as { msg?: string }).msg;
  } catch {
    return undefined;
  }
}
