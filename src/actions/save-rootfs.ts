import { join } from 'node:path';
import fs from 'fs-extra';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import { readContainerConfig } from './container-config.ts';
import type { Host } from './host.ts';
import { partialOf } from './image-store.ts';
import { type SavedRootfs, saveRootfs } from './rootfs-save.ts';

const summaryName = 'rootfs.json';

/** Saves the frozen container's root file system changes into the partial image. */
export async function saveContainerRootfs(host: Host, { container, image }: CheckpointStep): Promise<void> {
  const { rootfs } = readContainerConfig(container.bundle);
  const saved = await saveRootfs(rootfs, partialOf(image));
  fs.writeFileSync(join(partialOf(image), summaryName), `${JSON.stringify(saved)}\n`, { mode: 0o600 });
  host.log.info({ rootfs, ...saved }, 'saved the root file system');
  if (saved.kind === 'whole') {
    host.log.warn({ rootfs, bytes: saved.bytes }, 'the root file system is no overlay: it was saved whole');
  }
  if (saved.sockets.length > 0) {
    host.log.info({ sockets: saved.sockets }, 'sockets were left out: CRIU makes those anew that are bound');
  }
}

/** What {@link saveContainerRootfs} found, from the partial image. */
export const readRootfsSummary = (partial: string): SavedRootfs =>
  fs.readJsonSync(join(partial, summaryName)) as SavedRootfs;
