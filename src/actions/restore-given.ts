import type { RuncStep } from '../machines/container-context.ts';
import type { ContainerIdentity, Life } from '../machines/vocabulary.ts';
import { keepingCgroup2Options } from './cgroup2-options.ts';
import { writeCriuOptions } from './criu-options.ts';
import type { Host } from './host.ts';
import { claimLife } from './lives.ts';
import { reasonOf } from './problem.ts';
import { runcForCaller } from './runc.ts';
import { demandAnswer } from './share.ts';
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
 * Lets runc restore an image that the caller names. That raises the job's epoch as any restore does; the caller has
 * asked for this container in so many words, so it gets it even where another one carries the job on.
 *
 * @throws RuncFailure
 */
export async function restoreGiven(host: Host, step: RuncStep): Promise<Life> {
  const life = await claimOrWarn(host, step.container);
  const env = environmentToAdopt(host, step);
  await keepingCgroup2Options(host, () => runcForCaller({ ...host, env }, step.call.argv));
  return life;
}

async function claimOrWarn(host: Host, container: ContainerIdentity): Promise<Life> {
  try {
    await demandAnswer(host, container.imageRoot);
    const life = claimLife(host, container);
    if ('refused' in life) host.log.warn(`${life.refused}: this container makes no checkpoints`);
    return life;
  } catch (error) {
    host.log.warn({ reason: reasonOf(error) }, 'cannot take the job up: the first checkpoint decides');
    return { unseen: `the images of ${container.key} could not be reached (${reasonOf(error)})` };
  }
}
