import { readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { Problem } from './problem.ts';
import { unescapeOctal } from './rootfs-paths.ts';

/** A root file system on an overlay that can be written to. */
export interface OverlayRootfs {
  kind: 'overlay';
  /** Absolute, free of symlinks. */
  rootfs: string;
  upperdir: string;
  /** The uppermost first, all absolute. */
  lowerdirs: string[];
  /** Of the mount's options those that change how lower layers are read. */
  layerOptions: string[];
}

/** Where a container's root file system keeps its changes. */
export type RootfsLocation =
  | OverlayRootfs
  | { kind: 'plain'; rootfs: string }
  | { kind: 'readonly'; rootfs: string };

/** One line of /proc/self/mountinfo, as far as it matters here. */
export interface Mount {
  /** The directory of the mounted file system that is seen at the mount point; `/` unless it is a bind mount. */
  root: string;
  mountPoint: string;
  readOnly: boolean;
  type: string;
  /** The file system's own options, `name` or `name=value`. */
  options: string[];
}

/**
 * Finds out what a container's root file system is made of: an overlay with its layers, a mount that cannot be
 * written to, or a plain directory. The last mount on the path counts, for it hides the others.
 *
 * Relative layers are taken from the directory above the upper layer's own: containerd shortens long options to
 * `100/fs:99/fs` beside an upper layer `<snapshots>/101/fs` (containerd mount/mount_linux.go), Docker writes
 * `l/<short name>` beside `<overlay2>/<id>/diff` (moby daemon/graphdriver/overlay2).
 *
 * @throws {Problem} `rootfs-missing` when there is no such directory, `rootfs-layers` when a layer cannot be
 * found, `rootfs-index` when the overlay keeps an index of hard links.
 */
export function locateRootfs(
  path: string,
  mountinfo = readFileSync('/proc/self/mountinfo', 'latin1'),
): RootfsLocation {
  const rootfs = resolveRootfs(path);
  const mount = parseMountinfo(mountinfo).findLast(({ mountPoint }) => mountPoint === rootfs);
  // A bind mount of a directory inside an overlay has changes that this upper layer's paths would not tell.
  if (mount?.type !== 'overlay' || mount.root !== '/')
    return { kind: mount?.readOnly ? 'readonly' : 'plain', rootfs };
  const upperdir = values(mount.options, 'upperdir')[0];
  if (upperdir === undefined) return { kind: 'readonly', rootfs };
  refuseIndex(rootfs, mount.options);
  const home = dirname(dirname(upperdir));
  const lowerdirs = values(mount.options, 'lowerdir').map((lower) =>
    isAbsolute(lower) ? lower : join(home, lower),
  );
  for (const layer of [upperdir, ...lowerdirs]) {
    if (isAbsolute(layer) && statSync(layer, { throwIfNoEntry: false })?.isDirectory()) continue;
    throw new Problem(
      'rootfs-layers',
      `${rootfs} is an overlay with the layer ${layer}, which is not a directory seen from here; ` +
        'mount it with absolute paths, or relative to the directory above its upper layer',
    );
  }
  const layerOptions = mount.options.filter((option) => /^(redirect_dir=|metacopy=|userxattr$)/.test(option));
  return { kind: 'overlay', rootfs, upperdir, lowerdirs, layerOptions };
}

/** The mount points below a root file system, seen from this mount namespace. */
export function mountsBelow(
  rootfs: string,
  mountinfo = readFileSync('/proc/self/mountinfo', 'latin1'),
): string[] {
  const below = rootfs === '/' ? '/' : `${rootfs}/`;
  return parseMountinfo(mountinfo)
    .map(({ mountPoint }) => mountPoint)
    .filter((mountPoint) => mountPoint.startsWith(below));
}

/**
 * Refuses a root file system with other file systems mounted below it.
 * @throws {Problem} `rootfs-mounts`
 */
export function refuseMountsBelow(rootfs: string): void {
  const found = mountsBelow(rootfs);
  if (found.length === 0) return;
  throw new Problem(
    'rootfs-mounts',
    `${rootfs} has other file systems mounted below it (${found.slice(0, 3).join(', ')}), expected none; unmount them first`,
  );
}

/** Reads mountinfo's text (proc_pid_mountinfo(5)), given one character a byte. */
export function parseMountinfo(text: string): Mount[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ');
      const [type = '', , options = ''] = fields.slice(fields.indexOf('-', 6) + 1);
      return {
        root: decodeField(fields[3] ?? ''),
        mountPoint: decodeField(fields[4] ?? ''),
        readOnly: (fields[5] ?? '').split(',').includes('ro'),
        type,
        // Commas inside a value are written as \054, so the split comes first.
        options: options.split(',').map(decodeField),
      };
    });
}

/** A name in mountinfo or mountstats, given one character a byte: the kernel escapes what would part it. */
export function decodeField(field: string): string {
  return Buffer.from(unescapeOctal(field), 'latin1').toString('utf8');
}

function resolveRootfs(path: string): string {
  try {
    const rootfs = realpathSync(path);
    if (statSync(rootfs).isDirectory()) return rootfs;
  } catch (error) {
    throw new Problem(
      'rootfs-missing',
      `the root file system ${path} cannot be opened, expected a directory`,
      {
        cause: error,
      },
    );
  }
  throw new Problem('rootfs-missing', `the root file system ${path} is not a directory`);
}

/**
 * The directories that an overlay option names, as kept by the kernel: `lowerdir=a:b` with `\` before a colon,
 * or one `lowerdir+=a` each (kernel Documentation/filesystems/overlayfs.rst).
 */
function values(options: string[], name: string): string[] {
  return options.flatMap((option) => {
    if (option.startsWith(`${name}+=`)) return [option.slice(name.length + 2)];
    if (!option.startsWith(`${name}=`)) return [];
    const value = option.slice(name.length + 1);
    const parts = name === 'lowerdir' ? (value.match(/(?:\\.|[^:\\])+/gs) ?? []) : [value];
    return parts.map((part) => part.replace(/\\(.)/gs, '$1'));
  });
}

/** With an index, writing to one name of a hard-linked file changes names that the upper layer does not hold. */
function refuseIndex(rootfs: string, options: string[]): void {
  if (options.includes('index=off')) return;
  // The kernel shows the option only where it differs from the module's default.
  if (!options.includes('index=on') && !indexByDefault()) return;
  throw new Problem(
    'rootfs-index',
    `${rootfs} is an overlay with index=on, expected index=off as containerd and Docker mount it; mount it so`,
  );
}

function indexByDefault(): boolean {
  try {
    return readFileSync('/sys/module/overlay/parameters/index', 'utf8').trim() === 'Y';
  } catch {
    return false;
  }
}
