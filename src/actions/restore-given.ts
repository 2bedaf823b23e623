import type { RuncStep } from '../machines/container-context.ts';
import { keepingCgroup2Options } from './cgroup2-options.ts';
import { writeCriuOptions } from './criu-options.ts';
import type { Host } from './host.ts';
import { runcForCaller } from './runc.ts';
import { cgroupRootOptions } from './unified-cgroup.ts';

/**
 * The environment in which runc restores an image that the caller names: with the options for CRIU that an image of
 * Tardis's may need.
 */
export function environmentToAdopt({ env }: Host, { container, call }: RuncStep): NodeJS.ProcessEnv {
  const keepsConnections = call.switches.includes('tcp-established');
  const HOME = writeCriuOptions(
    container.bundle,
    'adopt',
    keepsConnections,
    cgroupRootOptions(container, call),
  );
  return { ...env, HOME };
}

/**
 * Lets runc restore an image that the caller names.
 *
 * @throws RuncFailure
 */
export async function restoreGiven(host: Host, step: RuncStep): Promise<void> {
  const env = environmentToAdopt(host, step);
  await keepingCgroup2Options(host, () => runcForCaller({ ...host, env }, step.call.argv));
}
