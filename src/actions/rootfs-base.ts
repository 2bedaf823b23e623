import { execa } from 'execa';
import { Problem } from './problem.ts';
import type { OverlayRootfs } from './rootfs-location.ts';

/** A root file system as its image has it, without the container's changes. */
export interface BaseView {
  /** Where it can be read, for as long as the view is open. */
  directory: string;
  close(): Promise<void>;
}

/**
 * Mounts the lower layers read-only over the root file system, in a mount namespace of its own, and waits. Links
 * of one or two characters name the layers: mount(2) takes one page of options, and paths may hold colons. An empty
 * layer below all others makes it an overlay even when the image has only one.
 */
const mountAndWait = `
set -eu
cd /
mount -t tmpfs -o mode=700 tardis-base "$1"
cd "$1"
mkdir base empty
options=$2
shift 2
layers=
for layer; do
  count=$((\${count:--1} + 1))
  ln -s "$layer" "$count"
  layers=$layers$count:
done
mount -t overlay -o "ro,lowerdir=\${layers}empty$options" tardis-base base
echo ready
exec cat >/dev/null
`;

/**
 * An environment in which mount(8) calls mount(2), whose options have a page. The newer calls that it makes since util-linux 2.39 take
 * 256 bytes of an option, and an overlay of a hundred layers needs more (util-linux#2287).
 */
export const mountEnvironment = { LC_ALL: 'C', LIBMOUNT_FORCE_MOUNT2: 'always' } as const;

/**
 * Opens a read-only view of an overlay's lower layers. Nobody else sees it, and it cannot be left behind: it lives
 * in a process's mount namespace, and that process ends with this one.
 *
 * @throws {Problem} `rootfs-base` when the layers cannot be mounted
 */
export async function openBaseView(location: OverlayRootfs): Promise<BaseView> {
  const { rootfs, lowerdirs, layerOptions } = location;
  const extra = layerOptions.map((option) => `,${option}`).join('');
  const script = ['sh', '-c', mountAndWait, 'sh', rootfs, extra, ...lowerdirs];
  const holder = execa('unshare', ['--mount', ...script], {
    stdin: 'pipe',
    reject: false,
    env: mountEnvironment,
  });
  const ready = await Promise.race([
    new Promise<true>((resolve) => holder.stdout.once('data', () => resolve(true))),
    holder.then((result) => result),
  ]);
  if (ready !== true) {
    const said = ready.stderr.trim().split('\n')[0] || ready.shortMessage || `status ${ready.exitCode}`;
    throw new Problem(
      'rootfs-base',
      `cannot mount the image's layers of ${rootfs} to read from them: ${said}`,
      {
        cause: ready,
      },
    );
  }
  return {
    directory: `/proc/${holder.pid}/root${rootfs}/base`,
    close: async () => {
      holder.stdin.end();
      await holder;
    },
  };
}
