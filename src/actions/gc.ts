import fs from 'node:fs';
import { join } from 'node:path';
import { keyForm } from './container-config.ts';
import { faultPoint } from './fault.ts';
import { type EndEntry, type ImageEntry, isBarred, isImage } from './find-images.ts';
import type { Host } from './host.ts';
import { refuseUnsafeKey } from './image-place.ts';
import { ageOf, keyDirectory, type Ledger, readLedger, syncDirectory } from './ledger.ts';
import { goesOn, hasEnded, isRemoved, type LifeEntry, latestLife, thisHost } from './lives.ts';
import { Problem } from './problem.ts';
import { namesIn } from './read-or-nothing.ts';
import {
  forgetKey,
  isBeingRemoved,
  isOwnRemoval,
  latestRemoval,
  noteRemoval,
  removingSeconds,
} from './removal.ts';
import { leftBehind } from './share.ts';

/** A checkpoint key, and the directory that its own directory is in. */
export interface KeyPlace {
  readonly imageRoot: string;
  readonly key: string;
}

/** How long images are kept that no container is expected to need any more. */
export interface Rules {
  /** Of a job that ended by itself, and that its own TARDIS_RESUME_AFTER does not resume after that. */
  readonly keepFinishedSeconds: number;
  /** Of a job that nobody has taken up since its last life ended or was last heard of; undefined: they are kept. */
  readonly unclaimedSeconds?: number | undefined;
}

/**
 * Why something of a key is removed: its job is finished; nobody takes the job up; an earlier removal or a checkpoint was
 * cut short; nothing but its ledger is left.
 */
export type Reason = 'finished' | 'unclaimed' | 'interrupted' | 'empty';

/** What may be removed of a key, as of when its ledger was read. */
export interface Due extends KeyPlace {
  readonly reason: Reason;
  /** Since the ledger's last entry, by the clock of the file system. */
  readonly ageSeconds: number;
  readonly ledger: Ledger;
  /** The images. */
  readonly generations: readonly number[];
  /** Directories that dead wrappers have left, by their names. */
  readonly litter: readonly string[];
  /** Marks beside images, `current`, and drafts of it, by their names. */
  readonly marks: readonly string[];
  /** Whether the ledger and the key's own directory go, too. */
  readonly forgets: boolean;
}

/**
 * For how long a directory counts as an image in the making: a dump may take a day (`maxFreezeSeconds`), and a minute for
 * each GiB of memory.
 */
const makingSeconds = 2 * 86_400;

/** Whether a directory below a root is a key's, by its name and its ledger. */
export function isKey(place: KeyPlace): boolean {
  if (!keyForm.test(place.key)) return false;
  const isDirectory = (path: string): boolean =>
    fs.lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  const home = keyDirectory(place);
  return isDirectory(home) && isDirectory(join(home, 'ledger'));
}

/**
 * Whether a key is worth a closer look: its ledger has not been touched for as long as finished jobs are kept, or there is
 * what a removal leaves that was cut short.
 */
export function isQuiet(place: KeyPlace, now: number, { keepFinishedSeconds }: Rules): boolean {
  const home = keyDirectory(place);
  if (ageOfPath(join(home, 'ledger'), now) >= keepFinishedSeconds) return true;
  const names = fs.readdirSync(home);
  return names.length === 1 || names.some(isOutOfSight);
}

/**
 * What of a key may be removed now. Changes nothing. Never due is an image that a container of the job may still be restored
 * from, unless nobody has taken the job up for `unclaimedSeconds`; nor anything of a key whose job goes on, as far as this
 * host can tell, or in which an image is being made.
 *
 * @param now of the file system's clock, in milliseconds.
 * @returns undefined where nothing is due.
 * @throws Problem `image-place`, `image-owner`, `image-mode` where others than root may write; `ledger-unknown` where the
 * ledger cannot be understood; the file system's own error.
 */
export function dueIn(
  host: Pick<Host, 'config'>,
  place: KeyPlace,
  now: number,
  rules: Rules,
): Due | undefined {
  try {
    return lookAt(host, place, now, rules);
  } catch (error) {
    // Somebody is at work there.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function lookAt(host: Pick<Host, 'config'>, place: KeyPlace, now: number, rules: Rules): Due | undefined {
  const home = keyDirectory(place);
  for (const directory of [home, join(home, 'ledger')]) refuseUnsafeKey(directory);
  const found = contentsOf(home, now);
  const { ledger, names, images, halfMade, latest, ended, quiet } = found;
  const isHere = latest?.claimant.host === thisHost(host);
  if (isBeingRemoved(host, home, ledger, now)) return undefined;
  if (latest && !ended && isHere && goesOn(latest)) return undefined;
  // Images that were brought here without their ledger may be restored (see imagesFor).
  const wereBrought = !ledger.entries.some(isImage) && halfMade.some((name) => /^\d+$/.test(name));
  const areInMaking = halfMade.some((name) => youngestIn(join(home, name), now) < makingSeconds);
  if (wereBrought || areInMaking) return undefined;
  const choices = choicesIn(home, found, now, rules);
  const [choice] = choices.toSorted(([, a], [, b]) => b.length - a.length);
  if (!choice) return undefined;

  const [reason, leaving] = choice;
  const generations = leaving.map(({ generation }) => generation);
  // Where an image stays, so does all that its job may still be about.
  const isOld = choices.some(([why]) => why !== 'interrupted');
  const isEmptied =
    generations.length === images.length && (isOld || generations.length > 0 || names.every(isOutOfSight));
  const litter = [...names.filter(isOutOfSight), ...(isEmptied ? halfMade : [])];
  const marks = names.filter((name) => {
    const marked = Number(/^(\d+)\.failed\.jsonl$/.exec(name)?.[1]);
    return isEmptied ? marked > 0 || /^current(\.\d+)?$/.test(name) : generations.includes(marked);
  });
  const directories = [...generations.map(String), ...litter];
  for (const name of directories) refuseUnsafeKey(join(home, name));
  // A life elsewhere that has not ended may go on, whatever its age: its ledger is what lets it make a checkpoint.
  const mayForget = latest === undefined || ended || isHere;
  const forgets =
    isEmptied && mayForget && names.every((name) => directories.includes(name) || marks.includes(name));
  if (directories.length === 0 && !forgets) return undefined;
  const otherwise = litter.length > 0 ? 'interrupted' : 'empty';
  return {
    ...{ imageRoot: place.imageRoot, key: place.key },
    reason: generations.length > 0 ? reason : otherwise,
    ageSeconds: Number.isFinite(quiet) ? Math.max(0, quiet) : 0,
    ...{ ledger, generations, litter, marks, forgets },
  };
}

/** What is in a key's directory. */
interface Contents {
  readonly ledger: Ledger;
  /** All names but the ledger's. */
  readonly names: readonly string[];
  /** Those that are committed, and there. */
  readonly images: readonly ImageEntry[];
  /** Images that were begun and not committed, by their directories' names. */
  readonly halfMade: readonly string[];
  readonly latest: LifeEntry | undefined;
  /** Whether the latest life has ended. */
  readonly ended: boolean;
  /** Seconds since the last entry; infinite where there is none. */
  readonly quiet: number;
}

/** @throws Problem `ledger-unknown`; the file system's own error. */
function contentsOf(home: string, now: number): Contents {
  const ledger = readLedger(home);
  refuseUnknown(home, ledger);
  const { entries } = ledger;
  const names = fs.readdirSync(home).filter((name) => name !== 'ledger');
  const images = entries.filter(isImage).filter(({ generation }) => names.includes(String(generation)));
  const committed = images.map(({ generation }) => String(generation));
  const latest = latestLife(ledger);
  return {
    ...{ ledger, names, images, latest },
    halfMade: names.filter((name) => /^\d+(\.partial)?$/.test(name) && !committed.includes(name)),
    ended: latest !== undefined && hasEnded(ledger, latest),
    quiet: Math.min(...entries.map((entry) => ageOf(home, entry, now))),
  };
}

/** For which reasons something may be removed, and which images each of them allows. */
function choicesIn(
  home: string,
  { ledger, names, images, latest, ended, quiet }: Contents,
  now: number,
  { keepFinishedSeconds, unclaimedSeconds }: Rules,
): [Reason, readonly ImageEntry[]][] {
  const choices: [Reason, readonly ImageEntry[]][] = [];
  const cutShort = images.filter((image) => isRemoved(ledger, image));
  const removal = latestRemoval(ledger);
  const isRemovalLast = removal !== undefined && removal.number > (latest?.number ?? 0);
  // Of an empty ledger nobody says who is about to begin it, or is removing it.
  const isDeserted = ledger.entries.length === 0 && ageOfPath(join(home, 'ledger'), now) >= removingSeconds;
  if (ended || isRemovalLast || isDeserted) choices.push(['interrupted', cutShort]);
  if (ended && quiet >= keepFinishedSeconds)
    choices.push(['finished', images.filter((image) => cutShort.includes(image) || isOver(ledger, image))]);
  if (unclaimedSeconds === undefined) return choices;
  const heard = Math.min(quiet, ...names.map((name) => ageOfPath(join(home, name), now)));
  if (heard >= unclaimedSeconds) choices.push(['unclaimed', images]);
  return choices;
}

function refuseUnknown(home: string, { unknown }: Ledger): void {
  if (unknown === 0) return;
  throw new Problem(
    'ledger-unknown',
    `entry ${unknown} of ${join(home, 'ledger')} cannot be understood, expected one that this Tardis knows: a later one ` +
      `wrote it, or it is damaged; use that one, or remove ${home} by hand if the job is over`,
  );
}

const isOutOfSight = (name: string): boolean => /^\d+\.removed$/.test(name);

const ageOfPath = (path: string, now: number): number => (now - fs.lstatSync(path).mtimeMs) / 1000;

/** Seconds since something was last made in an image, or written to a file of it. */
function youngestIn(image: string, now: number): number {
  const below = (directory: string): string[] =>
    fs.lstatSync(directory).isDirectory()
      ? fs.readdirSync(directory).map((name) => join(directory, name))
      : [];
  const paths = [image, ...below(image), ...below(image).flatMap(below)];
  return Math.min(...paths.map((path) => ageOfPath(path, now)));
}

/** Whether an image is of a job that ended by itself, and that its own setting does not resume after that. */
const isOver = (ledger: Ledger, image: ImageEntry): boolean =>
  ledger.entries.some((entry) => entry.kind === 'end' && isFinal(entry) && isBarred(ledger, image, entry));

const isFinal = ({ how, resumeAfter }: EndEntry): boolean =>
  how === 'finished' && (resumeAfter === 'preempted' || resumeAfter === 'failure');

/** How a removal went: done; going on, for it takes longer; or not begun, for somebody was at the key meanwhile. */
export type Outcome = 'removed' | 'going' | 'taken';

/**
 * Removes what is due, unless the key's ledger has got an entry since. From the `removal` entry on no container is restored
 * from these images; they get another name before anything of them is removed, and the ledger goes last. So it may be
 * killed at any point, and the next one goes on.
 *
 * @param ms how long to wait for the files to be removed; they go on being removed after that.
 * @throws Problem `not-removed`; the file system's own error.
 */
export async function removeDue(host: Pick<Host, 'config' | 'env'>, due: Due, ms: number): Promise<Outcome> {
  const home = keyDirectory(due);
  const noted = noteRemoval(host, home, due.ledger, due.generations);
  if (noted === undefined) return 'taken';
  faultPoint('gc.noted');
  // A host may sleep for hours at any point (hibernation), while another one goes on with this and the job begins anew.
  if (!isOwnRemoval(host, readLedger(home), noted)) return 'taken';
  const leaving = [...due.generations.map((generation) => String(generation)), ...due.litter];
  // `current` before the image that it names: a ledger without images is taken for one that never was (see imagesFor).
  for (const mark of due.marks) fs.rmSync(join(home, mark), { force: true });
  const paths = leaving.map((name) => putOutOfSight(home, name));
  syncDirectory(home);
  faultPoint('gc.renamed');
  if (paths.length > 0) {
    const pid = await leftBehind(host, ['rm', '-rf', '--one-file-system', '--', ...paths], ms);
    if (pid !== undefined) return 'going';
    const left = paths.find((path) => fs.existsSync(path));
    if (left)
      throw new Problem(
        'not-removed',
        `rm could not remove ${left}; look after its file system, and try again`,
      );
  }
  faultPoint('gc.removed');
  if (due.forgets) forgetKey(host, home, due.ledger, noted);
  return 'removed';
}

/** What bears a plain number is a whole image: it gets another name. */
function putOutOfSight(home: string, name: string): string {
  if (!/^\d+$/.test(name)) return join(home, name);
  const hidden = join(home, `${name}.removed`);
  fs.rmSync(hidden, { recursive: true, force: true });
  try {
    fs.renameSync(join(home, name), hidden);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return hidden;
}

/** Bytes of the files that are due, as `ls -l` tells them. */
export function bytesOf(due: Due): number {
  const below = (path: string): number => {
    const stats = fs.lstatSync(path, { throwIfNoEntry: false });
    if (!stats?.isDirectory()) return stats?.size ?? 0;
    return namesIn(path).reduce((sum, name) => sum + below(join(path, name)), 0);
  };
  const names = [...due.generations.map(String), ...due.litter];
  return names.reduce((sum, name) => sum + below(join(keyDirectory(due), name)), 0);
}
