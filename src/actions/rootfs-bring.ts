import { openBaseView } from './rootfs-base.ts';
import { listOtherNames } from './rootfs-links.ts';
import type { OverlayRootfs } from './rootfs-location.ts';
import { type BytePath, bytesOf, lookInside, parentOf, removeTree } from './rootfs-paths.ts';
import { copyPaths } from './rootfs-tar.ts';
import { listTree, walkRootfs } from './rootfs-walk.ts';
import { clearXattrs } from './rootfs-xattrs.ts';

/**
 * Takes an overlay's changes back through the mounted view: what is new goes, what was changed or deleted comes
 * back from the lower layers, directories get their attributes back.
 *
 * @param options.rootIsArchived the root directory's own attributes will be written later, so they alone are no
 * reason to read the lower layers
 * @throws {Problem} `rootfs-base`, `rootfs-links`, `rootfs-xattrs`, `rootfs-tar`
 */
export async function bringBase(
  location: OverlayRootfs,
  options: { rootIsArchived: boolean },
): Promise<void> {
  const walk = await walkRootfs(location);
  if (walk.changed.length === 0 && walk.shared.length === 1 && options.rootIsArchived) return;
  const root = bytesOf(location.rootfs);
  const base = await openBaseView(location);
  try {
    const lookBase = lookInside(bytesOf(base.directory));
    const isShared = (path: BytePath) => lookBase(path)?.isDirectory() ?? false;
    const shared = walk.shared.filter(isShared);
    const changed = [...walk.changed, ...walk.shared.filter((path) => !isShared(path))];

    const back = new Set(shared);
    for (const path of changed) {
      const stats = lookBase(path);
      const found = stats?.isDirectory()
        ? listTree(bytesOf(base.directory), path).paths
        : stats
          ? [path]
          : [];
      for (const one of found) back.add(one);
    }
    const linked = await listOtherNames(bytesOf(base.directory), back, lookBase);
    for (const path of linked) back.add(path).add(parentOf(path));

    const look = lookInside(root);
    for (const path of [...changed, ...linked]) removeTree(`${root}/${path}`, look(path));
    await clearXattrs(shared.map((path) => `${root}/${path}`));
    // Sorted, a directory comes before what is in it.
    await copyPaths(base.directory, [...back].sort(), location.rootfs);
  } finally {
    await base.close();
  }
}
