import type { RuncStep } from '../machines/container.ts';
import { writeCriuOptions } from './criu-options.ts';
import type { Host } from './host.ts';
import { runcForCaller } from './runc.ts';
import { cgroupRootOptions } from './unified-cgroup.ts';

/**
 * Lets runc restore an image that the caller names, with the options that an image of Tardis's may need.
 *
 * @throws RuncFailure
 */
export async function restoreGiven(host: Host, { container, call }: RuncStep): Promise<void> {
  const keepsConnections = call.argv.some((word) => /^--?tcp-established(=true)?$/.test(word));
  const HOME = writeCriuOptions(
    container.bundle,
    'adopt',
    keepsConnections,
    cgroupRootOptions(container, call),
  );
  await runcForCaller({ ...host, env: { ...host.env, HOME } }, call.argv);
}
