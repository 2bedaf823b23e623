import { execa } from 'execa';
import { Problem } from './problem.ts';

/**
 * Copies files of one directory into another by a program: what waits for a slow file server is then a process, which
 * can be seen to get on and can be killed.
 *
 * @param where the files go, for a message: `into the image`.
 * @throws Problem `image-copy`
 */
export async function copyFiles(
  from: string,
  names: readonly string[],
  into: string,
  where: string,
): Promise<void> {
  if (names.length === 0) return;
  const { exitCode, stderr } = await execa('cp', ['--target-directory', into, '--', ...names], {
    cwd: from,
    stdin: 'ignore',
    reject: false,
  });
  if (exitCode !== 0) throw new Problem('image-copy', `cannot copy CRIU's files ${where}: ${stderr}`);
}
