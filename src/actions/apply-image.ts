import type { RestoreInput } from '../machines/restore.ts';
import { readContainerConfig } from './container-config.ts';
import { cutGrownFiles, hasCutFiles, putCutBack } from './grown-files.ts';
import type { Host } from './host.ts';
import { keyDirectory, readLedger } from './ledger.ts';
import { latestLife } from './lives.ts';
import { readManifest } from './manifest.ts';
import { readManifestKeys } from './manifest-keys.ts';
import { Problem, reasonOf } from './problem.ts';
import { rollbackOf } from './rollback.ts';
import { resetRootfs } from './rootfs-reset.ts';
import { demandAnswer } from './share.ts';

/**
 * Makes the files that the restored job will find: the root file system as the image has it, and on volumes what has grown
 * since the dump cut back, where the container asks for that.
 *
 * @throws Problem `rollback` where there is no way back; what `resetRootfs` and `cutGrownFiles` throw.
 */
export async function applyImage(host: Host, { container, image }: RestoreInput): Promise<void> {
  const rollback = rollbackOf(host, container);
  if (rollback === undefined)
    throw new Problem('rollback', 'the image is not applied: nothing was saved of the files before');
  const config = readContainerConfig(container.bundle);
  await resetRootfs(config.rootfs, image.directory);
  const { dump } = readManifest(image.directory, readManifestKeys(host.config.manifestKeys));
  await cutGrownFiles(host, dump.volumeFiles ?? [], config, image.generation, rollback);
}

/**
 * Makes files on volumes again what they were before {@link applyImage}, while this container holds the job: once another has
 * taken it up, that one writes there. Where nothing was cut, nobody is asked.
 */
export async function putVolumesBack(host: Host, { container, epoch }: RestoreInput): Promise<void> {
  const rollback = rollbackOf(host, container);
  if (rollback === undefined || !hasCutFiles(rollback)) return;
  try {
    await demandAnswer(host, container.imageRoot);
    const holder = latestLife(readLedger(keyDirectory(container)));
    if (holder?.number === epoch) return await putCutBack(host, rollback);
    host.log.warn('files that were cut back stay so: another container has taken the job up');
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, `files that were cut back stay so: ${reasonOf(error)}`);
  }
}
