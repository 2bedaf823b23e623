import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { readContainerConfig } from './container-config.ts';
import { freeBytes } from './full-disk.ts';
import type { Host } from './host.ts';
import { Problem } from './problem.ts';
import { locateRootfs, type RootfsLocation } from './rootfs-location.ts';
import { prepareScratch, scratchHome } from './scratch.ts';
import { shortDigest } from './short-digest.ts';

/** Half a rollback is worse than none: only one with this mark is ever used, and it is the last to be written. */
const wholeMark = 'whole.json';
/** There was no room for one, and what it would hold can be made anew by whoever makes the container. */
const unsavedMark = 'unsaved.json';

/**
 * Where a new container's own changes are kept while an image is applied over them: on the host's own disk, for they may be
 * large (a container that is started again, a root file system that is no overlay), and a bundle is in memory. An earlier
 * Tardis kept them in the bundle, or beside the root file system.
 */
function places(host: Host, { bundle }: ContainerIdentity) {
  const { rootfs } = readContainerConfig(bundle);
  const own = join(scratchHome(host), 'rollback', shortDigest(bundle));
  return { rootfs, own, all: [own, join(bundle, 'tardis-rollback'), `${rootfs}.tardis-rollback`] };
}

/** The directory of a rollback that was saved, or could not be, and that was not yet dropped; or undefined. */
const pendingIn = ({ all }: ReturnType<typeof places>): string | undefined =>
  all.find((directory) => [wholeMark, unsavedMark].some((mark) => existsSync(join(directory, mark))));

/** Where the rollback of a container that is being restored is kept; undefined where none was begun. */
export const rollbackOf = (host: Host, container: ContainerIdentity): string | undefined =>
  pendingIn(places(host, container));

/** Whether an image was applied, or half of one, by a wrapper that neither finished nor rolled back. */
export const isRollbackPending = (host: Host, container: ContainerIdentity): boolean =>
  rollbackOf(host, container) !== undefined;

/**
 * Saves what {@link rollBackRootfs} needs; nothing of the root file system is changed. May be run twice: one that is
 * pending stays, for it was saved before anything was applied.
 *
 * @throws Problem `scratch-full` where there is no room, unless the root file system is the container's own as a whole:
 * whoever creates the container again makes it anew. `image-owner`, `image-mode`; see `saveRootfs`.
 */
export async function saveRollback(host: Host, container: ContainerIdentity): Promise<void> {
  const found = places(host, container);
  if (pendingIn(found)) return;
  const location = locateRootfs(found.rootfs);
  prepareScratch(host, container, 0);
  const needed = await bytesOf(location);
  const free = freeBytes(host.config.scratchDir);
  try {
    await rm(found.own, { recursive: true, force: true });
    mkdirSync(found.own, { recursive: true, mode: 0o700 });
    if (needed > free && location.kind === 'plain') {
      host.log.warn(
        { needed, free },
        'there is no room to save the root file system: if the restore fails, so does the create',
      );
      writeFileSync(join(found.own, unsavedMark), `${JSON.stringify({ needed, free })}\n`);
      return;
    }
    if (needed > free) {
      throw new Problem(
        'scratch-full',
        `the container's own files take ${needed} bytes, and ${host.config.scratchDir} has ${free} left: they cannot be ` +
          'saved while its job is restored; make room there, or name a larger disk by scratchDir',
      );
    }
    const { saveRootfs } = await import('./rootfs-save.ts');
    await saveRootfs(found.rootfs, found.own);
    writeFileSync(join(found.own, wholeMark), `${JSON.stringify({ savedAt: new Date().toISOString() })}\n`);
  } catch (error) {
    await rm(found.own, { recursive: true, force: true });
    throw error;
  }
}

/** The bytes that saving a root file system takes at most, about: of an overlay, of its upper layer. */
async function bytesOf(location: RootfsLocation): Promise<number> {
  if (location.kind === 'readonly') return 0;
  const { execa } = await import('execa');
  const directory = location.kind === 'overlay' ? location.upperdir : location.rootfs;
  const words = ['--summarize', '--one-file-system', '--block-size=1', '--', directory];
  const { stdout } = await execa('du', words, { stdin: 'ignore', reject: false });
  return Number(/^\d+/.exec(stdout)?.[0] ?? 0);
}

/**
 * Makes the root file system what it was at {@link saveRollback}; where nothing was saved, nothing was changed. Files on volumes stay
 * cut back: while a wrapper is dead another host may have taken the job up, and write there.
 *
 * @throws Problem `rollback` where there was no room to save it.
 */
export async function rollBackRootfs(host: Host, container: ContainerIdentity): Promise<void> {
  const found = places(host, container);
  const pending = pendingIn(found);
  if (!pending) return;
  if (existsSync(join(pending, unsavedMark))) {
    throw new Problem(
      'rollback',
      `${found.rootfs} holds files of the job's image, and there was no room on ${host.config.scratchDir} to save what was ` +
        'there before; remove the container and create it again',
    );
  }
  const { resetRootfs } = await import('./rootfs-reset.ts');
  await resetRootfs(found.rootfs, pending);
}

/** Removes a rollback that is not needed any more, its mark first: what is left of it then is never used. */
export async function dropRollback(host: Host, container: ContainerIdentity): Promise<void> {
  for (const directory of places(host, container).all) {
    for (const mark of [wholeMark, unsavedMark]) await rm(join(directory, mark), { force: true });
    await rm(directory, { recursive: true, force: true });
  }
}
