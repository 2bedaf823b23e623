import type { RestoreInput } from '../machines/restore.ts';
import { baseIdentityOf } from './base-identity.ts';
import { readContainerConfig } from './container-config.ts';
import { type Definition, definitionIn, readDefinition, stricterThan } from './definition.ts';
import { refuseChangedFiles } from './grown-files.ts';
import type { Host } from './host.ts';
import { readHostFacts } from './host-facts.ts';
import { refuseUnsafeImage } from './image-place.ts';
import { readManifestKeys } from './manifest-keys.ts';
import { Problem } from './problem.ts';
import { locateRootfs } from './rootfs-location.ts';
import { prepareScratch } from './scratch.ts';
import { validateImage } from './validate-image.ts';

/**
 * Decides whether the image may become this container. Who may have written it is asked first: until then nothing
 * of it is read.
 *
 * @throws Problem `image-...`, see {@link refuseUnsafeImage}, {@link validateImage}, and {@link refuseChangedFiles}; `manifest-keys`;
 * `scratch-full`; `rootfs-...` where the container's layers cannot be found. Nothing has been touched then.
 */
export async function judgeImage(host: Host, { container, image }: RestoreInput): Promise<void> {
  refuseUnsafeImage(host.config, container, image);
  const keys = readManifestKeys(host.config.manifestKeys);
  const { shape, rootfs, text, ...settings } = readContainerConfig(container.bundle);
  const facts = await readHostFacts(host);
  const readBase = async () => baseIdentityOf(locateRootfs(rootfs));
  const { compressed = {}, dump } = await validateImage(image.directory, {
    key: container.key,
    shape,
    facts,
    keys,
    readBase,
  });
  refuseStricter(host, definitionIn(image.directory), readDefinition(text));
  await refuseChangedFiles(dump.volumeFiles ?? [], settings);
  const bytes = Object.values(compressed).reduce((sum, file) => sum + file.bytes, 0);
  if (bytes > 0) prepareScratch(host, container, bytes);
}

/** A restored job is confined as its image is: it must not go on where more was asked for. */
function refuseStricter({ config, log }: Host, old: Definition, now: Definition): void {
  const stricter = stricterThan(old, now);
  if (stricter.length === 0) return;
  const words = `the new container allows less than the one that was dumped, and a restored job is not held to it (${stricter.join('; ')})`;
  if (config.onStricterDefinition === 'warn') {
    log.warn(words);
    return;
  }
  throw new Problem(
    'image-confinement',
    `${words}; take that back, use another TARDIS_CHECKPOINT_KEY for it, or set onStricterDefinition to warn on this host`,
  );
}
