import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Problem, reasonOf } from './problem.ts';
import { bringBase } from './rootfs-bring.ts';
import { locateRootfs, type RootfsLocation, refuseMountsBelow } from './rootfs-location.ts';
import {
  type BytePath,
  bytesOf,
  emptyDirectory,
  lookInside,
  parentOf,
  readable,
  refuseUnsafe,
  removeTree,
} from './rootfs-paths.ts';
import { deletedFiles, diffArchive } from './rootfs-save.ts';
import { listMembers, type Member, unpackArchive } from './rootfs-tar.ts';
import { clearXattrs } from './rootfs-xattrs.ts';

/**
 * Makes a root file system what its image and a saved set of changes say, whatever it has become since: to give a
 * new container the changes of a checkpointed one, or to roll back to those of the same one. Writes only through
 * the mounted view, never into an overlay's upper layer, and nothing before the saved files have been checked. May
 * be run again, also after it was killed half way.
 *
 * @param rootfs the mounted root file system, `<bundle>/rootfs`; no process may use it meanwhile
 * @param from a directory that `saveRootfs` wrote
 * @throws {Problem} `rootfs-saved` when the saved files cannot be read, `rootfs-unsafe` when they name paths outside,
 * `rootfs-kind` when they do not fit this root file system, `rootfs-mounts`, `rootfs-readonly`, `rootfs-missing`,
 * `rootfs-layers`, `rootfs-index`, `rootfs-base`, `rootfs-xattrs`, `rootfs-links`, `rootfs-tar`
 */
export async function resetRootfs(rootfs: string, from: string): Promise<void> {
  const location = locateRootfs(rootfs);
  const archive = join(from, diffArchive);
  const removed = readRemoved(join(from, deletedFiles));
  const members = await listMembers(archive);
  refuseStrays(members, archive);
  if (location.kind === 'readonly' && removed.length + members.length === 0) return;
  refuseMisfit(location, removed, from);
  refuseMountsBelow(location.rootfs);
  const root = bytesOf(location.rootfs);

  if (removed.includes('.')) emptyDirectory(root);
  else if (location.kind === 'overlay') await bringBase(location, { rootIsArchived: members.length > 0 });

  const look = lookInside(root);
  for (const path of removed) if (path !== '.') removeTree(`${root}/${path}`, look(path));
  await clearXattrs(prepareDirectories(root, members));
  // Directories have none by now that a file could inherit: those that the archive names, which are all, were cleared.
  const hasAcls = members.some(({ hasAcl }) => hasAcl);
  if (members.length > 0) await unpackArchive(archive, location.rootfs, hasAcls);
}

function readRemoved(file: string): BytePath[] {
  let text: string;
  try {
    text = readFileSync(file, 'latin1');
  } catch (error) {
    throw new Problem('rootfs-saved', `cannot read the saved list of removed files: ${reasonOf(error)}`, {
      cause: error,
    });
  }
  const paths = text.split('\0');
  // Cut short, the last path would name something else.
  if (paths.pop() !== '')
    throw new Problem('rootfs-saved', `${file} does not end with a NUL: it was cut short`);
  for (const path of paths) refuseUnsafe(path, file);
  return paths;
}

/**
 * An archive of ours names every directory before what is in it, nothing twice, and of a hard link another name that
 * came before. Anything else could lead through a symlink: of the image, or of the archive itself.
 */
function refuseStrays(members: Member[], archive: string): void {
  const directories = new Set<BytePath>(['.']);
  const others = new Set<BytePath>();
  const refuse = (path: BytePath, how: string): never => {
    throw new Problem(
      'rootfs-unsafe',
      `${archive} names '${readable(path)}' ${how}; it was not written by Tardis or was damaged: take another checkpoint image`,
    );
  };
  for (const { path, isDirectory, linkTo } of members) {
    refuseUnsafe(path, archive);
    if (!directories.has(parentOf(path))) refuse(path, 'without the directory it is in');
    if (others.has(path) || (path !== '.' && directories.has(path))) refuse(path, 'twice');
    if (linkTo !== undefined && !others.has(linkTo))
      refuse(path, `as a link to '${readable(linkTo)}', which it does not hold`);
    (isDirectory ? directories : others).add(path);
  }
}

function refuseMisfit(location: RootfsLocation, removed: BytePath[], from: string): void {
  if (location.kind === 'readonly') {
    throw new Problem('rootfs-readonly', `${location.rootfs} is read-only, but ${from} holds changes for it`);
  }
  if (location.kind === 'plain' && !removed.includes('.')) {
    throw new Problem(
      'rootfs-kind',
      `${location.rootfs} is a plain directory, but ${from} holds only changes to an image's layers; restore under the engine that made the checkpoint`,
    );
  }
}

/**
 * Takes away what stands where the archive has a directory, so that tar can never write through a symlink, and
 * answers the directories that are there already, absolute.
 */
function prepareDirectories(root: BytePath, members: Member[]): BytePath[] {
  const look = lookInside(root);
  return members.flatMap(({ path, isDirectory }) => {
    const found = isDirectory ? look(path) : undefined;
    if (found?.isDirectory()) return [`${root}/${path}`];
    if (found) removeTree(`${root}/${path}`, found);
    return [];
  });
}
