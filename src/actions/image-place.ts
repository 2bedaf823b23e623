import { lstatSync, readdirSync, type Stats } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import type { ContainerIdentity, ImagePlace } from '../machines/vocabulary.ts';
import { isReservedName, keyForm } from './container-config.ts';
import type { HostConfig } from './host-config.ts';
import { Problem } from './problem.ts';
import { isInside, nearestFirst, realPathOf } from './real-path.ts';

type Roots = Pick<HostConfig, 'checkpointRoot' | 'allowedRoots'>;
type Place = Pick<ContainerIdentity, 'imageRoot' | 'key'>;

const wayOut =
  'whoever may write there chooses what this host runs as root; find out who has, then chown it to root and ' +
  'chmod it go-w, or use another place';

/**
 * Refuses a place for images that others than root could have made, or could exchange: every directory from the host's
 * root for images down to the key's own is looked at, by its name and by where it really is. What is not there yet is
 * nobody's.
 *
 * The configured root may be a symlink: administrators do that. A sticky directory (`/tmp`) is taken, for others
 * cannot rename in it what is root's.
 *
 * @throws Problem `image-place`, `image-owner`, `image-mode`
 */
export function refuseUnsafePlace(roots: Roots, { imageRoot, key }: Place): void {
  const { real, top } = refuseUnsafeRoot(roots, imageRoot);
  refuseUnsafeKey(join(real, key));
  refuseNested(real, top, key);
}

/**
 * Refuses a job's directory inside another job's, or around one: whoever has the one could remove what the other has, or make it
 * useless. What is not there yet is in nobody's way.
 *
 * @param real where the directory of the keys' directories really is.
 * @param top the root that it is in. No other root is looked at: one may be on a file server that does not answer.
 */
function refuseNested(real: string, top: string, key: string): void {
  for (let path = real; isInside(top, path); path = dirname(path)) {
    if (statsOf(join(path, 'ledger'))?.isDirectory()) {
      throw new Problem(
        'image-place',
        `${real} is in ${path}, which is the directory of a job (it has a ledger), expected one that holds jobs' directories; ` +
          'use another TARDIS_CHECKPOINT_HOST_PATH',
      );
    }
    if (path === top) break;
  }
  const home = join(real, key);
  const foreign = directoriesIn(home).find((name) => !isReservedName(name) && keyForm.test(name));
  if (foreign === undefined) return;
  throw new Problem(
    'image-place',
    `${home} holds ${foreign}, which is nothing of a job's, expected images and a ledger alone: other jobs may have their directories ` +
      'there; use another TARDIS_CHECKPOINT_KEY',
  );
}

function directoriesIn(directory: string): string[] {
  if (!statsOf(directory)) return [];
  const entries = readdirSync(directory, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

/**
 * As {@link refuseUnsafePlace}, of a directory that holds keys' directories.
 *
 * @returns where it really is, and where the root is that it is in.
 */
export function refuseUnsafeRoot(
  roots: Roots,
  imageRoot: string,
): { readonly real: string; readonly top: string } {
  const isConfigured = resolve(imageRoot) === resolve(roots.checkpointRoot);
  const allowed = isConfigured ? [roots.checkpointRoot] : roots.allowedRoots;
  const real = realPathOf(imageRoot);
  const inside = nearestFirst(allowed, imageRoot).find((root) => isInside(realPathOf(root), real));
  const realRoot = inside === undefined ? undefined : realPathOf(inside);
  if (realRoot === undefined) {
    throw new Problem(
      'image-place',
      `${imageRoot} is really ${real}, expected a directory inside one of ${allowed.join(', ')}; take its symlinks ` +
        'away, or add where they lead to allowedRoots',
    );
  }
  const root = allowed.find((candidate) => isInside(candidate, imageRoot));
  if (root !== undefined) refuseUnsafeWay(realPathOf(root), relative(root, imageRoot));
  refuseUnsafeWay(realRoot, relative(realRoot, real));
  return { real, top: realRoot };
}

/** As {@link refuseUnsafePlace}, of a key's own directory, or of one in it. */
export function refuseUnsafeKey(home: string): void {
  const stats = statsOf(home);
  if (!stats) return;
  if (!stats.isDirectory()) {
    throw new Problem(
      'image-place',
      `${home} is ${kindOf(stats)}, expected a directory; ${stats.isSymbolicLink() ? 'put the directory itself there' : 'take it away'}`,
    );
  }
  refuseForeign(home, stats);
}

/** As {@link refuseUnsafePlace}, of an image: `current`, the image's directory, and everything in it. */
export function refuseUnsafeImage(roots: Roots, place: Place, { directory }: ImagePlace): void {
  refuseUnsafePlace(roots, place);
  const current = join(place.imageRoot, place.key, 'current');
  const link = statsOf(current);
  if (link) refuseForeign(current, link);
  const stats = statsOf(directory);
  if (stats && !stats.isDirectory()) {
    throw new Problem(
      'image-place',
      `${directory} is ${kindOf(stats)}, expected a directory; put the image itself there, or take another one`,
    );
  }
  refuseForeignTree(directory, stats);
}

/** Every directory on the way; a symlink of root's may stand for one. */
export function refuseUnsafeWay(root: string, way: string): void {
  let path = root;
  for (const name of ['', ...way.split('/')]) {
    path = join(path, name);
    const stats = statsOf(path);
    if (!stats) return;
    const isSticky = stats.isDirectory() && (stats.mode & 0o1000) !== 0;
    refuseForeign(path, stats, isSticky);
  }
}

function refuseForeignTree(path: string, stats: Stats | undefined): void {
  if (!stats) return;
  refuseForeign(path, stats);
  if (stats.isDirectory()) {
    for (const name of readdirSync(path)) refuseForeignTree(join(path, name), statsOf(join(path, name)));
  } else if (!stats.isFile()) {
    throw new Problem(
      'image-file-extra',
      `${path} is ${kindOf(stats)}; an image holds files and directories alone: take away what does not belong`,
    );
  }
}

function refuseForeign(path: string, stats: Stats, mayBeWritable = false): void {
  if (stats.uid !== 0 && stats.uid !== process.geteuid?.()) {
    throw new Problem('image-owner', `${path} belongs to the user ${stats.uid}, expected root; ${wayOut}`);
  }
  // A symlink's mode says nothing (symlink(7)).
  if (stats.isSymbolicLink() || mayBeWritable || (stats.mode & 0o022) === 0) return;
  const mode = (stats.mode & 0o7777).toString(8).padStart(4, '0');
  throw new Problem(
    'image-mode',
    `${path} has mode ${mode}, expected one that only its owner may write; ${wayOut}`,
  );
}

function kindOf(stats: Stats): string {
  if (stats.isSymbolicLink()) return 'a symlink';
  if (stats.isDirectory()) return 'a directory';
  if (stats.isFile()) return 'a file';
  if (stats.isFIFO()) return 'a named pipe';
  return stats.isSocket() ? 'a socket' : 'a device';
}

const statsOf = (path: string): Stats | undefined => lstatSync(path, { throwIfNoEntry: false });
