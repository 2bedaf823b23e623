import { join } from 'node:path';
import fs from 'fs-extra';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { readContainerConfig } from './container-config.ts';
import { locateRootfs } from './rootfs-location.ts';
import { resetRootfs } from './rootfs-reset.ts';
import { saveRootfs } from './rootfs-save.ts';

const wholeMark = 'whole.json';

/**
 * Where a new container's own changes are kept while an image is applied over them: in the bundle, for the little
 * that a new overlay holds; beside a root file system that is no overlay, on whose disk there is room for it.
 */
async function rollbackDirectory(
  container: ContainerIdentity,
): Promise<{ rootfs: string; directory: string }> {
  const { rootfs } = readContainerConfig(container.bundle);
  const { kind } = await locateRootfs(rootfs);
  const directory =
    kind === 'plain' ? `${rootfs}.tardis-rollback` : join(container.bundle, 'tardis-rollback');
  return { rootfs, directory };
}

/** Saves what {@link rollBackRootfs} needs; nothing of the root file system is changed. May be run twice. */
export async function saveRollback(container: ContainerIdentity): Promise<void> {
  const { rootfs, directory } = await rollbackDirectory(container);
  await fs.remove(directory);
  await fs.mkdir(directory, { mode: 0o700 });
  await saveRootfs(rootfs, directory);
  // Half a rollback is worse than none: only a marked one is ever used.
  fs.writeJsonSync(join(directory, wholeMark), { savedAt: new Date().toISOString() });
}

/** Makes the root file system what it was at {@link saveRollback}; where nothing was saved, nothing was changed. */
export async function rollBackRootfs(container: ContainerIdentity): Promise<void> {
  const { rootfs, directory } = await rollbackDirectory(container);
  if (fs.existsSync(join(directory, wholeMark))) await resetRootfs(rootfs, directory);
}

export async function dropRollback(container: ContainerIdentity): Promise<void> {
  const { directory } = await rollbackDirectory(container);
  await fs.remove(directory);
}
