import fs from 'node:fs';
import { join } from 'node:path';
import {
  type ContainerIdentity,
  failureOf,
  type ImagePlace,
  type Life,
  type TakenUp,
} from '../machines/vocabulary.ts';
import { type ResumeAfter, readContainerConfig, resumeAfterOf } from './container-config.ts';
import { endHalfRestored } from './end-half-restored.ts';
import type { Host } from './host.ts';
import { refuseUnsafePlace } from './image-place.ts';
import { findCurrentImage } from './image-store.ts';
import { type Ending, type Entry, keyDirectory, type Ledger, readLedger } from './ledger.ts';
import { claimLife } from './lives.ts';
import { Problem, reasonOf } from './problem.ts';
import { demandAnswer } from './share.ts';

/**
 * Takes the job up for a new container, and finds the images that it may carry on from.
 *
 * Throws nothing: a place that cannot be reached costs the job its past, not its start.
 */
export async function takeUp(host: Host, container: ContainerIdentity): Promise<TakenUp> {
  try {
    await demandAnswer(host, container.imageRoot);
    refuseUnsafePlace(host.config, container);
    await endHalfRestored(host, container);
    const life = claimLife(host, container);
    if ('refused' in life) {
      const message = `${life.refused}: this container starts from scratch, and makes no checkpoints`;
      return { life, images: [], failure: { code: 'life-refused', message } };
    }
    const after = resumeAfterOf(readContainerConfig(container.bundle).env);
    return { life, ...imagesFor(container, after, host.config.restoreAttempts) };
  } catch (error) {
    const what = `the images of ${container.key} could not be reached (${reasonOf(error)})`;
    // Also where the life could be begun: its images were not seen.
    const life = { unseen: what };
    const isUnreachable = !(error instanceof Problem) || error.code === unreachable;
    if (!isUnreachable) return { life, images: [], failure: failureOf(error) };
    if (host.config.onUnreachable === 'fail') {
      const message = `${what}: the container is not created, for onUnreachable says so; try again`;
      return { life, images: [], failure: { code: unreachable, message }, mustFail: true };
    }
    const message = `${what}: it starts from scratch`;
    return { life, images: [], failure: { code: unreachable, message } };
  }
}

const unreachable = 'images-unreachable';

/**
 * Takes the job up for a container that could not when it began, where that supersedes nothing: no image that may be
 * restored, for it has seen none.
 *
 * @throws Problem `images-unseen`; the file system's own error.
 */
export function takeUpLate(host: Host, container: ContainerIdentity, unseen: string): Life {
  const after = resumeAfterOf(readContainerConfig(container.bundle).env);
  const [newest] = imagesFor(container, after, host.config.restoreAttempts).images;
  if (newest) {
    throw new Problem(
      'images-unseen',
      `when the container began, ${unseen}; a checkpoint would supersede generation ${newest.generation}, which it has ` +
        `not seen. It runs on; stop it and start it again to ` +
        'carry the job on, or give it another TARDIS_CHECKPOINT_KEY if it is another job',
    );
  }
  return claimLife(host, container);
}

/** After which endings the images made before are not used any more. */
const finalEndings: Readonly<Record<ResumeAfter, readonly Ending[]>> = {
  preempted: ['finished', 'failed'],
  failure: ['finished'],
  always: [],
};

/**
 * The images of a key that may be restored, the newest first, and why there are none, or why the newest is left out.
 *
 * @param attempts how many failed restores an image is given.
 * @throws the file system's own error.
 */
export function imagesFor(
  container: Pick<ContainerIdentity, 'imageRoot' | 'key'>,
  after: ResumeAfter,
  attempts: number,
): Pick<TakenUp, 'images' | 'failure'> {
  const home = keyDirectory(container);
  const ledger = readLedger(home);
  if (ledger.last === 0 || !ledger.entries.some(({ kind }) => kind === 'image')) {
    // Images that were brought here without their ledger.
    const current = findCurrentImage(container);
    return { images: current ? [current] : [] };
  }
  const ending = ledger.entries.findLast(
    (entry) => entry.kind === 'end' && finalEndings[after].includes(entry.how),
  );
  const committed = ledger.entries.filter(isImage).toReversed();
  const places = committed
    .filter(({ number }) => number > (ending?.number ?? 0))
    .map(({ generation }): ImagePlace => ({ generation, directory: join(home, String(generation)) }))
    .filter(({ directory }) => fs.existsSync(directory));
  const images = places.filter(({ generation }) => failedAttempts(ledger, generation) < attempts);
  const [newest] = places;
  if (newest && newest !== images[0]) {
    const message =
      `generation ${newest.generation} of ${container.key} could not be restored ${attempts} times and is not tried ` +
      `again (restoreAttempts); ${images[0] ? `generation ${images[0].generation} is` : 'the job starts from scratch'}`;
    return { images, failure: { code: 'image-attempts', message } };
  }
  if (!newest && ending?.kind === 'end' && committed.length > 0) {
    const message =
      `the job ${container.key} ended by itself at ${ending.at} (${ending.how}): it starts from scratch; ` +
      'TARDIS_RESUME_AFTER says after which endings it is resumed';
    return { images, failure: { code: 'job-ended', message } };
  }
  return { images };
}

const isImage = (entry: Entry): entry is Extract<Entry, { kind: 'image' }> => entry.kind === 'image';

/** Restores of an image that were begun and did not come to their end. */
function failedAttempts({ entries }: Ledger, generation: number): number {
  const count = (kind: 'attempt' | 'restored') =>
    entries.filter((entry) => entry.kind === kind && entry.generation === generation).length;
  return Math.max(0, count('attempt') - count('restored'));
}
