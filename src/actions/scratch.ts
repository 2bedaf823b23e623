import fs from 'node:fs';
import { join } from 'node:path';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { bootId } from './boot-id.ts';
import { freeBytes } from './full-disk.ts';
import type { Host } from './host.ts';
import { refuseUnsafeWay } from './image-place.ts';
import { Problem, reasonOf } from './problem.ts';

/** What Tardis makes in the scratch directory, which may be the root of a disk that others use as well. */
const ownName = (boot: string): string => `tardis-${boot}`;
const isOwnName = /^tardis-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const wayTo = ({ root, id }: ContainerIdentity): string => join(ownName(bootId()), root, id);

/** What Tardis has on the host's disk of containers of this boot. */
export const scratchHome = ({ config }: Host): string => join(config.scratchDir, ownName(bootId()));

/** A container's own directory on the host's disk, for CRIU's pages on their way into a compressed image or out of it. */
const scratchOf = ({ config }: Host, container: ContainerIdentity): string =>
  join(config.scratchDir, wayTo(container));

/** Where CRIU's files of a checkpoint wait for their compression. */
export const scratchDumpOf = (host: Host, container: ContainerIdentity): string =>
  join(scratchOf(host, container), 'checkpoint');

/** Where an image is restored once to see whether it can be: a bundle of its own, and all that is written meanwhile. */
export const trialOf = (host: Host, container: ContainerIdentity): string =>
  join(scratchOf(host, container), 'trial');

/**
 * Makes sure that nobody but root can get at what will lie in a container's scratch directory, and that there is room
 * for it; and removes what was left of containers when the host went down, which nobody else would.
 *
 * @param bytes that will be written there; 0 where that is not known.
 * @param what takes them, and its verb.
 * @throws Problem `image-owner`, `image-mode`, `scratch-full`; the file system's own error.
 */
export function prepareScratch(
  host: Host,
  container: ContainerIdentity,
  bytes: number,
  what = "the job's memory takes",
): void {
  const { scratchDir } = host.config;
  fs.mkdirSync(scratchDir, { recursive: true, mode: 0o700 });
  refuseUnsafeWay(scratchDir, wayTo(container));
  for (const name of fs.readdirSync(scratchDir)) {
    if (isOwnName.test(name) && name !== ownName(bootId())) drop(host, join(scratchDir, name));
  }
  const free = freeBytes(scratchDir);
  if (free >= bytes) return;
  throw new Problem(
    'scratch-full',
    `${what} ${bytes} bytes, and ${scratchDir} has ${free} left; make room there, or name a ` +
      'larger disk by scratchDir',
  );
}

/**
 * Makes a container's scratch directory anew, empty and for root's eyes only.
 *
 * @throws the file system's own error.
 */
export function freshScratch(host: Host, container: ContainerIdentity): string {
  const directory = scratchOf(host, container);
  fs.rmSync(directory, { recursive: true, force: true });
  fs.mkdirSync(join(directory, '..'), { recursive: true, mode: 0o700 });
  fs.mkdirSync(directory, { mode: 0o700 });
  return directory;
}

/** Makes the directory of a trial anew, empty and for root's eyes only; what else a container has there stays. */
export function freshTrial(host: Host, container: ContainerIdentity): string {
  const directory = trialOf(host, container);
  fs.rmSync(directory, { recursive: true, force: true });
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  return directory;
}

/** Removes a container's scratch directory, where there is one; failing to fails nothing. */
export const dropScratch = (host: Host, container: ContainerIdentity): void =>
  drop(host, scratchOf(host, container));

function drop(host: Host, directory: string): void {
  try {
    fs.rmSync(directory, { recursive: true, force: true });
  } catch (error) {
    host.log.warn({ directory, reason: reasonOf(error) }, 'a scratch directory stays: remove it by hand');
  }
}
