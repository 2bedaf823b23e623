import { execa } from 'execa';
import { Problem, reasonOf } from './problem.ts';
import { type BytePath, nulList, unescapeOctal } from './rootfs-paths.ts';

/** Extended attributes of one path: name to value, the value in hexadecimal with `0x` before it. */
export type Xattrs = Map<string, string>;

/**
 * Reads extended attributes of many paths with one getfattr(1); paths without any are left out.
 *
 * @param paths absolute; symlinks are not followed
 * @param pattern an extended regular expression over the attributes' names; `-` means all of them
 * @throws {Problem} `rootfs-xattrs` when getfattr is missing or fails
 */
export async function readXattrs(paths: BytePath[], pattern: string): Promise<Map<BytePath, Xattrs>> {
  const found = new Map<BytePath, Xattrs>();
  if (paths.length === 0) return found;
  const command = [
    'getfattr',
    '--no-dereference',
    '--absolute-names',
    '--dump',
    '--encoding=hex',
    `--match=${pattern}`,
  ];
  const text = await overPaths(command, paths);
  for (const block of text.split('\n\n')) {
    const [heading, ...lines] = block.split('\n');
    if (!heading?.startsWith('# file: ')) continue;
    const attributes = lines
      .filter((line) => line !== '')
      .map((line): [string, string] => {
        const [name = '', value = ''] = line.split('=');
        return [unescapeOctal(name), value];
      });
    found.set(unescapeOctal(heading.slice('# file: '.length)), new Map(attributes));
  }
  return found;
}

/**
 * Removes all extended attributes, access control lists included, from directories; unpacking an archive over
 * them only adds. SELinux labels stay: they belong to the container, not to the image.
 *
 * @throws {Problem} `rootfs-xattrs`
 */
export async function clearXattrs(directories: BytePath[]): Promise<void> {
  const holders = new Map<string, BytePath[]>();
  for (const [path, attributes] of await readXattrs(directories, '-')) {
    for (const name of attributes.keys()) {
      if (name === 'security.selinux') continue;
      const paths = holders.get(name);
      if (paths) paths.push(path);
      else holders.set(name, [path]);
    }
  }
  for (const [name, paths] of holders)
    await overPaths(['setfattr', '--no-dereference', `--remove=${name}`], paths);
}

/** Runs a command over absolute paths by xargs(1), which splits what is too long for one command line. */
async function overPaths(command: string[], paths: BytePath[]): Promise<string> {
  try {
    const { stdout } = await execa('xargs', ['--null', '--no-run-if-empty', ...command], {
      input: nulList(paths),
      encoding: 'latin1',
      stripFinalNewline: false,
      maxBuffer: 2 ** 30,
      env: { LC_ALL: 'C' },
    });
    return stdout;
  } catch (error) {
    throw new Problem(
      'rootfs-xattrs',
      `${command[0]} failed on the root file system's directories (Debian package attr): ${reasonOf(error)}`,
      { cause: error },
    );
  }
}
