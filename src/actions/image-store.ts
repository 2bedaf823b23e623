import fs from 'node:fs';
import { join } from 'node:path';
import type { ContainerIdentity, ImageInMaking, ImagePlace } from '../machines/vocabulary.ts';
import { faultPoint } from './fault.ts';
import { appendEntry, keepReserve, keyDirectory, type Ledger, readLedger, syncDirectory } from './ledger.ts';
import { checkLife } from './lives.ts';

/**
 * Where an image is built that will be `<imageRoot>/<key>/<generation>`: it gets its name by one rename, so what
 * bears a plain number is whole.
 */
export const partialOf = (image: ImagePlace): string => `${image.directory}.partial`;

/** Where CRIU's files are in an image that is being made. */
export const dumpIn = (image: ImagePlace): string => join(partialOf(image), 'checkpoint');

/** Chooses the next generation and makes its empty partial directory, for root's eyes only. */
export function openPartial(container: ContainerIdentity): ImagePlace {
  const home = keyDirectory(container);
  fs.mkdirSync(home, { recursive: true, mode: 0o700 });
  const taken = fs.readdirSync(home).map((name) => Number(/^(\d+)/.exec(name)?.[1] ?? 0));
  const known = readLedger(home).entries.map((entry) => (entry.kind === 'image' ? entry.generation : 0));
  const generation = Math.max(0, ...taken, ...known) + 1;
  const image = { generation, directory: join(home, String(generation)) };
  fs.mkdirSync(partialOf(image), { mode: 0o700 });
  try {
    fs.mkdirSync(dumpIn(image), { mode: 0o700 });
  } catch (error) {
    fs.rmdirSync(partialOf(image));
    throw error;
  }
  return image;
}

/** The image that `current` names; undefined where there is none. `current` is for people: the ledger decides. */
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

const hasImage = ({ entries }: Ledger, { generation }: ImagePlace): boolean =>
  entries.some((entry) => entry.kind === 'image' && entry.generation === generation);

/** Whether the ledger has this image. */
export function isCommitted(container: ContainerIdentity, image: ImagePlace): boolean {
  return hasImage(readLedger(keyDirectory(container)), image) && fs.existsSync(image.directory);
}

/**
 * Makes a finished partial image durable and enters it into the ledger: everything it holds is on the disk before it
 * gets its name, and its name before the ledger tells it. May be run twice.
 *
 * @throws Problem `life-superseded` where another container has taken the job up; the file system's own error.
 */
export async function commit(container: ContainerIdentity, image: ImageInMaking): Promise<void> {
  const home = keyDirectory(container);
  if (!hasImage(readLedger(home), image)) {
    checkLife(container, image);
    if (!fs.existsSync(image.directory)) {
      // One syncfs for all files (coreutils `sync --file-system`): an fsync for each takes ten times as long.
      const { execa } = await import('execa');
      await execa('sync', ['--file-system', partialOf(image)]);
      faultPoint('commitImage.synced');
      fs.renameSync(partialOf(image), image.directory);
      faultPoint('commitImage.renamed');
    }
    syncDirectory(home);
    const { generation, epoch } = image;
    let entered: number | undefined;
    while (entered === undefined) {
      // Right after what was read: a life that begins in between makes this fail, and is seen the next time round.
      const { last } = checkLife(container, image);
      entered = appendEntry(home, last, { kind: 'image', epoch, generation }, { durable: true });
    }
    keepReserve(home);
    faultPoint('commitImage.entered');
  }
  pointCurrent(container, image);
}

/** Lets `current` name a committed image, where no later one is. */
export function pointCurrent(container: ContainerIdentity, { generation }: ImagePlace): void {
  const home = keyDirectory(container);
  const newest = readLedger(home).entries.findLast((entry) => entry.kind === 'image');
  if (newest && newest.generation !== generation) return;
  const draft = join(home, `current.${generation}`);
  fs.rmSync(draft, { force: true });
  fs.symlinkSync(String(generation), draft);
  faultPoint('commitImage.drafted');
  fs.renameSync(draft, join(home, 'current'));
  syncDirectory(home);
}

/** Removes an image that is not in the ledger, partial or renamed; one that is stays. */
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
