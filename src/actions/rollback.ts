import { existsSync, writeFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { readContainerConfig } from './container-config.ts';
import { locateRootfs } from './rootfs-location.ts';

/** Half a rollback is worse than none: only one with this mark is ever used, and it is the last to be written. */
const wholeMark = 'whole.json';

/**
 * Where a new container's own changes may be kept while an image is applied over them: in the bundle, for the little
 * that a new overlay holds; beside a root file system that is no overlay, on whose disk there is room for it.
 */
function places({ bundle }: ContainerIdentity): { rootfs: string; inBundle: string; besideRootfs: string } {
  const { rootfs } = readContainerConfig(bundle);
  return { rootfs, inBundle: join(bundle, 'tardis-rollback'), besideRootfs: `${rootfs}.tardis-rollback` };
}

/** The directory of a rollback that was saved and not yet dropped, or undefined. */
function pendingIn({ inBundle, besideRootfs }: ReturnType<typeof places>): string | undefined {
  return [inBundle, besideRootfs].find((directory) => existsSync(join(directory, wholeMark)));
}

/** Whether an image was applied, or half of one, by a wrapper that neither finished nor rolled back. */
export const isRollbackPending = (container: ContainerIdentity): boolean =>
  pendingIn(places(container)) !== undefined;

/**
 * Saves what {@link rollBackRootfs} needs; nothing of the root file system is changed. May be run twice: one that is
 * pending stays, for it was saved before anything was applied.
 */
export async function saveRollback(container: ContainerIdentity): Promise<void> {
  const found = places(container);
  if (pendingIn(found)) return;
  const { kind } = await locateRootfs(found.rootfs);
  const directory = kind === 'plain' ? found.besideRootfs : found.inBundle;
  try {
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { mode: 0o700 });
    const { saveRootfs } = await import('./rootfs-save.ts');
    await saveRootfs(found.rootfs, directory);
    writeFileSync(join(directory, wholeMark), `${JSON.stringify({ savedAt: new Date().toISOString() })}\n`);
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

/** Makes the root file system what it was at {@link saveRollback}; where nothing was saved, nothing was changed. */
export async function rollBackRootfs(container: ContainerIdentity): Promise<void> {
  const found = places(container);
  const pending = pendingIn(found);
  if (!pending) return;
  const { resetRootfs } = await import('./rootfs-reset.ts');
  await resetRootfs(found.rootfs, pending);
}

/** Removes a rollback that is not needed any more, its mark first: what is left of it then is never used. */
export async function dropRollback(container: ContainerIdentity): Promise<void> {
  const { inBundle, besideRootfs } = places(container);
  for (const directory of [inBundle, besideRootfs]) {
    await rm(join(directory, wholeMark), { force: true });
    await rm(directory, { recursive: true, force: true });
  }
}
