import { join } from 'node:path';
import { execa } from 'execa';
import fs from 'fs-extra';
import type { ContainerIdentity, ImagePlace } from '../machines/vocabulary.ts';
import { faultPoint } from './fault.ts';
import { Problem } from './problem.ts';

/**
 * `<imageRoot>/<key>/<generation>/`, with `current` naming the newest whole one. An image is built in
 * `<generation>.partial` and gets its name by one rename, so what bears a plain number is whole.
 */
const keyDirectory = ({ imageRoot, key }: Pick<ContainerIdentity, 'imageRoot' | 'key'>): string =>
  join(imageRoot, key);

export const partialOf = (image: ImagePlace): string => `${image.directory}.partial`;

/** Chooses the next generation and makes its empty partial directory, for root's eyes only. */
export function openPartial(container: ContainerIdentity): ImagePlace {
  const home = keyDirectory(container);
  fs.mkdirSync(home, { recursive: true, mode: 0o700 });
  const taken = fs.readdirSync(home).map((name) => Number(/^(\d+)/.exec(name)?.[1] ?? 0));
  const generation = Math.max(0, ...taken) + 1;
  const image = { generation, directory: join(home, String(generation)) };
  fs.mkdirSync(partialOf(image), { mode: 0o700 });
  fs.mkdirSync(join(partialOf(image), 'checkpoint'), { mode: 0o700 });
  return image;
}

/** The newest whole image of the container's key, or undefined. */
export function findCurrentImage(
  container: Pick<ContainerIdentity, 'imageRoot' | 'key'>,
): ImagePlace | undefined {
  const home = keyDirectory(container);
  let target: string;
  try {
    target = fs.readlinkSync(join(home, 'current'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const generation = Number(/^\d+$/.exec(target)?.[0]);
  if (!generation)
    throw new Error(
      `${join(home, 'current')} names ${JSON.stringify(target)}; expected a generation's number`,
    );
  return { generation, directory: join(home, target) };
}

/** The generation that `current` names; 0 where there is none. */
function currentGeneration(container: Pick<ContainerIdentity, 'imageRoot' | 'key'>): number {
  return findCurrentImage(container)?.generation ?? 0;
}

/** Whether `current` names this image, or a later one that another host has made since. */
export function isCommitted(container: ContainerIdentity, image: ImagePlace): boolean {
  return currentGeneration(container) >= image.generation && fs.existsSync(image.directory);
}

/**
 * Makes a finished partial image durable and current: everything it holds is on the disk before it gets its name,
 * and its name before `current` tells it. May be run twice.
 *
 * @throws Problem `image-superseded` where a later generation is current; the file system's own error.
 */
export async function commit(container: ContainerIdentity, image: ImagePlace): Promise<void> {
  const home = keyDirectory(container);
  const current = currentGeneration(container);
  if (current > image.generation) {
    throw new Problem(
      'image-superseded',
      `generation ${current} of ${container.key} has been committed meanwhile, by another container of this key; ` +
        `expected none after ${image.generation}; let only one container of a key run at a time`,
    );
  }
  if (!fs.existsSync(image.directory)) {
    // One syncfs for all files (coreutils `sync --file-system`): an fsync for each takes ten times as long.
    await execa('sync', ['--file-system', partialOf(image)]);
    faultPoint('commitImage.synced');
    fs.renameSync(partialOf(image), image.directory);
    faultPoint('commitImage.renamed');
  }
  syncDirectory(home);
  const draft = join(home, `current.${image.generation}`);
  fs.rmSync(draft, { force: true });
  fs.symlinkSync(String(image.generation), draft);
  faultPoint('commitImage.drafted');
  fs.renameSync(draft, join(home, 'current'));
  syncDirectory(home);
}

/** Removes an image that is not current, partial or renamed; one that is stays. */
export function dropUncommitted(container: ContainerIdentity, image: ImagePlace): void {
  fs.rmSync(partialOf(image), { recursive: true, force: true });
  fs.rmSync(join(keyDirectory(container), `current.${image.generation}`), { force: true });
  if (!isCommitted(container, image)) fs.rmSync(image.directory, { recursive: true, force: true });
}

/**
 * Marks an image that could not be restored, beside it: the image itself stays as it is, for diagnosis.
 */
export function markFailed(
  image: ImagePlace,
  mark: { readonly container: string; readonly reason: string },
): void {
  const path = `${image.directory}.failed.jsonl`;
  fs.appendFileSync(path, `${JSON.stringify({ at: new Date().toISOString(), ...mark })}\n`, { mode: 0o600 });
}

function syncDirectory(path: string): void {
  const fd = fs.openSync(path, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
