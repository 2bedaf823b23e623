import { join } from 'node:path';
import fs from 'fs-extra';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import { dumpOf } from './image-store.ts';
import { Problem, reasonOf } from './problem.ts';

/**
 * Gives the caller's `--image-path` every file of CRIU's: by hard link, or by copy where it is on another file
 * system. May be run twice.
 *
 * @throws Problem `image-path` where the caller's directory cannot take them (a full disk, a read-only one).
 */
export async function handOver({ request, image }: CheckpointStep): Promise<void> {
  const from = dumpOf(image);
  const into = request.imagePath;
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
  for (const name of fs.readdirSync(given)) fs.rmSync(join(imagePath, name), { force: true });
}
