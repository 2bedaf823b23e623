import type { RestoreInput } from '../machines/restore.ts';
import { readContainerConfig } from './container-config.ts';
import type { Host } from './host.ts';
import { readHostFacts } from './host-facts.ts';
import { validateImage } from './validate-image.ts';

/**
 * Decides whether the image may become this container.
 *
 * @throws Problem `image-...`, see {@link validateImage}; nothing has been touched then.
 */
export async function judgeImage(host: Host, { container, image }: RestoreInput): Promise<void> {
  const { shape } = readContainerConfig(container.bundle);
  await validateImage(image.directory, { key: container.key, shape, facts: await readHostFacts(host) });
}
