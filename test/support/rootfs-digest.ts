import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { execa } from 'execa';

/** What to tell apart; modification times, in nanoseconds, unless told otherwise. */
export interface ListingOptions {
  mtimes?: boolean;
}

/**
 * Lists a directory tree for comparison, one line a path: type, mode, owner, device number, link target, extended
 * attributes, content, names of the same file, modification time. It shares no code with what it checks.
 */
export async function rootfsListing(directory: string, options: ListingOptions = {}): Promise<string[]> {
  const attributes = await allXattrs(directory);
  const firstNames = new Map<string, string>();
  return allPaths(directory).map((path) => {
    const file = Buffer.from(`${directory}/${path}`, 'latin1');
    const stats = lstatSync(file, { bigint: true });
    const inode = `${stats.dev}:${stats.ino}`;
    const first = stats.isDirectory() ? path : (firstNames.get(inode) ?? path);
    firstNames.set(inode, first);
    const type = (stats.mode & 0o170000n).toString(8);
    return [
      JSON.stringify(path),
      `type=${type} mode=${(stats.mode & 0o7777n).toString(8)} owner=${stats.uid}:${stats.gid}`,
      stats.isCharacterDevice() || stats.isBlockDevice() ? `rdev=${stats.rdev}` : '',
      stats.isSymbolicLink() ? `target=${JSON.stringify(readlinkSync(file, 'latin1'))}` : '',
      stats.isFile() ? `size=${stats.size} sha256=${hash(readFileSync(file))}` : '',
      first === path ? '' : `same-as=${JSON.stringify(first)}`,
      attributes.get(`${directory}/${path}`)?.join(' ') ?? '',
      options.mtimes === false ? '' : `mtime=${stats.mtimeNs}`,
    ]
      .filter((part) => part !== '')
      .join(' ');
  });
}

/** One hash over `rootfsListing`. */
export async function rootfsDigest(directory: string, options: ListingOptions = {}): Promise<string> {
  return hash((await rootfsListing(directory, options)).join('\n'));
}

function allPaths(directory: string, path = '.'): string[] {
  const names = readdirSync(Buffer.from(`${directory}/${path}`, 'latin1'), {
    encoding: 'buffer',
    withFileTypes: true,
  });
  const below = names.flatMap((entry) => {
    const child = `${path}/${entry.name.toString('latin1')}`;
    return entry.isDirectory() ? allPaths(directory, child) : [child];
  });
  return [path, ...below].sort();
}

async function allXattrs(directory: string): Promise<Map<string, string[]>> {
  const flags = ['-R', '-P', '-h', '-d', '-m', '-', '-e', 'hex', '--absolute-names'];
  const { stdout } = await execa('getfattr', [...flags, '--', `${directory}/.`], { encoding: 'latin1' });
  const blocks = stdout.split('\n\n').map((block) => block.split('\n'));
  return new Map(
    blocks.map(([heading = '', ...lines]) => [
      plain(heading.replace('# file: ', '')),
      lines.filter((line) => line !== '').sort(),
    ]),
  );
}

function plain(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function hash(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
