import { basename, join } from 'node:path';
import fs from 'fs-extra';
import { compressedSuffix } from './compression.ts';
import { Problem, reasonOf } from './problem.ts';

/**
 * Gives the caller's `--image-path` every file of CRIU's: by hard link, or by copy where it is on another file
 * system. May be run twice.
 *
 * @param from the directory of a whole dump.
 * @throws Problem `image-path` where the caller's directory cannot take them (a full disk, a read-only one).
 */
export async function handOver(from: string, into: string): Promise<void> {
  try {
    await fs.mkdir(into, { recursive: true, mode: 0o700 });
    for (const name of await fs.readdir(from)) {
      await fs.rm(join(into, name), { force: true });
      await linkOrCopy(join(from, name), join(into, name));
    }
  } catch (error) {
    throw new Problem('image-path', `cannot put CRIU's files into ${into}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await fs.link(from, to);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EXDEV' && code !== 'EPERM' && code !== 'EMLINK' && code !== 'ENOTSUP') throw error;
    await fs.copyFile(from, to, fs.constants.COPYFILE_FICLONE);
  }
}

/** Takes back what {@link handOver} gave for an image that is not going to be. */
export function takeBack(imagePath: string, directory: string): void {
  const given = join(directory, 'checkpoint');
  if (!fs.existsSync(given)) return;
  for (const name of fs.readdirSync(given))
    for (const handed of [name, basename(name, compressedSuffix)])
      fs.rmSync(join(imagePath, handed), { force: true });
}
