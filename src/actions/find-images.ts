import fs from 'node:fs';
import { join } from 'node:path';
import {
  type ContainerIdentity,
  failureOf,
  type ImagePlace,
  type Life,
  type TakenUp,
} from '../machines/vocabulary.ts';
import {
  type ContainerShape,
  type ResumeAfter,
  readContainerConfig,
  resumeAfterOf,
} from './container-config.ts';
import { endHalfCreated } from './end-half-created.ts';
import type { Host } from './host.ts';
import { refuseUnsafePlace } from './image-place.ts';
import { findCurrentImage } from './image-store.ts';
import { type Ending, type Entry, keyDirectory, type Ledger, readLedger } from './ledger.ts';
import { claimLife, isImageOf, isRemoved, lastRestore, thisHost } from './lives.ts';
import { Problem, reasonOf } from './problem.ts';
import { demandAnswer } from './share.ts';

/**
 * Takes the job up for a new container, and finds the images that it may carry on from.
 *
 * Throws nothing: a place that cannot be reached costs the job its past, not its start.
 */
export async function takeUp(host: Host, container: ContainerIdentity): Promise<TakenUp> {
  try {
    // It was asked as the container's settings were read, if its path is its own.
    await demandAnswer(host, container.imageRoot, true);
    refuseUnsafePlace(host.config, container);
    const config = readContainerConfig(container.bundle);
    const after = resumeAfterOf(config.env);
    const stranger = await strangerTo(host, container, config.shape, after);
    if (stranger) return stranger;
    await endHalfCreated(host, container);
    const life = claimLife(host, container);
    if ('refused' in life) {
      const message = `${life.refused}: this container starts from scratch, and makes no checkpoints`;
      return { life, images: [], failure: { code: 'life-refused', message } };
    }
    return { life, ...imagesFor(host, container, after) };
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

/**
 * Why a container is another job than the one that has its key's images: it is of another command, user, or the like.
 * It starts from scratch and does not take that job up: its end is not that job's.
 */
async function strangerTo(
  host: Host,
  container: ContainerIdentity,
  shape: ContainerShape,
  after: ResumeAfter,
): Promise<TakenUp | undefined> {
  const { images } = imagesFor(host, container, after);
  const [newest] = images;
  if (!newest) return undefined;
  const { differencesBetween, fingerprintOf } = await import('./fingerprint.ts');
  const { readManifest } = await import('./manifest.ts');
  const fingerprint = fingerprintOf(shape);
  // Whatever else is wrong with an image is found out when it is validated.
  const isOfAnother = (directory: string): boolean => {
    try {
      return readManifest(directory).container.fingerprint !== fingerprint;
    } catch {
      return false;
    }
  };
  if (!images.every(({ directory }) => isOfAnother(directory))) return undefined;
  const differing = differencesBetween(readManifest(newest.directory).container.shape, shape);
  const refused = `generation ${newest.generation} of ${container.key} is of another container (it differs in ${differing.join(', ')})`;
  const message = `${refused}: this one starts from scratch, and makes no checkpoints; give it another TARDIS_CHECKPOINT_KEY, or remove ${keyDirectory(container)} if that job is over`;
  return { life: { refused }, images: [], failure: { code: 'image-config', message } };
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
  const [newest] = imagesFor(host, container, after).images;
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

/** After which endings the images that a life has continued or committed are not used any more. */
const finalEndings: Readonly<Record<ResumeAfter, readonly Ending[]>> = {
  preempted: ['finished', 'failed'],
  failure: ['finished'],
  always: [],
};

/** How often a restore may be begun and never come to an end, of its own or CRIU's: its wrapper was killed, or its host lost. */
const vanishedAllowance = 10;

/**
 * The images of a key that may be restored, the newest first, and why there are none, or why the newest is left out.
 *
 * @param after after which endings the job is resumed.
 * @throws the file system's own error.
 */
export function imagesFor(
  host: Host,
  container: Pick<ContainerIdentity, 'imageRoot' | 'key'>,
  after: ResumeAfter,
): Pick<TakenUp, 'images' | 'failure'> {
  const attempts = host.config.restoreAttempts;
  const home = keyDirectory(container);
  const ledger = readLedger(home);
  if (ledger.last === 0 || !ledger.entries.some(({ kind }) => kind === 'image')) {
    // Images that were brought here without their ledger.
    const current = findCurrentImage(container);
    return { images: current ? [current] : [] };
  }
  const bars = ledger.entries.filter(
    (entry): entry is EndEntry => entry.kind === 'end' && finalEndings[after].includes(entry.how),
  );
  const committed = ledger.entries.filter(isImage).toReversed();
  const places = committed
    .filter((image) => !bars.some((end) => isBarred(ledger, image, end)) && !isRemoved(ledger, image))
    .map(({ generation }): ImagePlace => ({ generation, directory: join(home, String(generation)) }))
    .filter(({ directory }) => fs.existsSync(directory));
  const images = places.filter(
    ({ generation }) =>
      failuresOn(thisHost(host), ledger, generation) < attempts &&
      vanishedRestores(ledger, generation) < vanishedAllowance,
  );
  const [newest] = places;
  if (newest && newest !== images[0]) {
    const message =
      `generation ${newest.generation} of ${container.key} could not be restored on this host ${attempts} times ` +
      `(restoreAttempts), or ${vanishedAllowance} restores were cut short, and is not tried again here; ` +
      `${images[0] ? `generation ${images[0].generation} is` : 'the job starts from scratch, and its images stay'}`;
    return { images, failure: { code: 'image-attempts', message } };
  }
  const ending = bars.at(-1);
  if (!newest && ending && committed.length > 0) {
    const message =
      `the job ${container.key} ended by itself at ${ending.at} (${ending.how}): it starts from scratch; ` +
      'TARDIS_RESUME_AFTER says after which endings it is resumed';
    return { images, failure: { code: 'job-ended', message } };
  }
  return { images };
}

export type ImageEntry = Extract<Entry, { kind: 'image' }>;
export type EndEntry = Extract<Entry, { kind: 'end' }>;

export const isImage = (entry: Entry): entry is ImageEntry => entry.kind === 'image';

/**
 * Whether a life that came to an end of its own is the end of an image's job: the life has committed that image or a
 * later one, or carried on from it or a later one. One that started afresh beside the images ends nothing but itself.
 */
export function isBarred({ entries }: Ledger, image: ImageEntry, { epoch, number }: EndEntry): boolean {
  if (image.number > number) return false;
  return entries.some((entry) => isImageOf(epoch, entry) && entry.generation >= image.generation);
}

/** How often CRIU could not restore an image on a host. */
const failuresOn = (host: string, { entries }: Ledger, generation: number): number =>
  entries.filter((entry) => entry.kind === 'failed' && entry.generation === generation && entry.host === host)
    .length;

/** Restores of an image that were begun and came to no end, since one that did. */
function vanishedRestores(ledger: Ledger, generation: number): number {
  const since = lastRestore(ledger, generation);
  const count = (kind: 'attempt' | 'failed') =>
    ledger.entries.filter(
      (entry) => entry.kind === kind && entry.generation === generation && entry.number > since,
    ).length;
  return Math.max(0, count('attempt') - count('failed'));
}
