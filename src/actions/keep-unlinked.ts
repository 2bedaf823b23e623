import { join, posix } from 'node:path';
import { execa } from 'execa';
import fs from 'fs-extra';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import { type UnlinkedFile, unlinkedFilesIn } from './criu-image.ts';
import { dumpPlaceOf } from './dump-place.ts';
import { freezerOf, processesIn } from './freezer.ts';
import type { Host } from './host.ts';
import { Problem } from './problem.ts';
import { targetOf } from './read-or-nothing.ts';
import { parseMountinfo } from './rootfs-location.ts';
import { readRuncRecord } from './runc-state.ts';
import { saveContainerRootfs } from './save-rootfs.ts';
import { pathOnly } from './volume-files.ts';

/**
 * Saves the root file system once more, with the links that CRIU made for files that are open and unlinked while
 * another link keeps them.
 *
 * CRIU finds such a file again through a temporary link, `link_remap.<n>`, and removes those links as soon as a
 * dump that leaves the job running is done (criu/cr-dump.c, delete_link_remaps), which ours always does. So they
 * are made again while the container is still frozen, saved, and removed. Most jobs have no such file.
 *
 * @throws Problem `unlinked-file` for one on a volume, which an image cannot hold.
 */
export async function keepUnlinked(host: Host, step: CheckpointStep): Promise<void> {
  const unlinked = unlinkedFilesIn(dumpPlaceOf(step));
  if (unlinked.length === 0) return;
  const record = readRuncRecord(step.container);
  const pids = processesIn(freezerOf(record).directory);
  const root = `/proc/${record?.pid}/root`;
  const made: string[] = [];
  try {
    for (const file of unlinked) {
      const link = join(root, file.remap);
      const open = isOnVolume(record?.pid, file) ? undefined : findOpen(pids, file, root);
      if (!open) {
        throw new Problem(
          'unlinked-file',
          `${posix.join('/', file.name)} is open and was unlinked while another name keeps it, and it is not on the container's ` +
            'root file system: CRIU could not find it again on a volume, and no image could be restored. The job runs on; ' +
            'try again when it has closed that file',
        );
      }
      // Through the container's own mounts: a link cannot cross from one mount to another.
      await execa('ln', ['--logical', '--force', open, link]);
      made.push(link);
    }
    if (made.length > 0) await saveContainerRootfs(host, step);
  } finally {
    for (const link of made) await fs.rm(link, { force: true });
  }
}

/** Whether a file's link would be on another mount than the root file system. */
function isOnVolume(pid: number | undefined, { remap }: UnlinkedFile): boolean {
  const mounts = parseMountinfo(fs.readFileSync(`/proc/${pid}/mountinfo`, 'latin1'));
  const path = posix.join('/', remap);
  return mounts.some(({ mountPoint }) => mountPoint !== '/' && path.startsWith(`${mountPoint}/`));
}

/** A descriptor or a mapping of the unlinked file, on the container's root file system. */
function findOpen(pids: readonly number[], { name }: UnlinkedFile, root: string): string | undefined {
  const target = `${posix.join('/', name)} (deleted)`;
  const mount = mountIdOf(root);
  for (const pid of pids) {
    for (const kind of ['fd', 'map_files']) {
      const directory = `/proc/${pid}/${kind}`;
      for (const entry of fs.readdirSync(directory)) {
        const path = join(directory, entry);
        if (targetOf(path) === target && mountIdOf(path) === mount) return path;
      }
    }
  }
  return undefined;
}

/**
 * The mount that a path is on (proc_pid_fdinfo(5), mnt_id). Device numbers do not tell: files of an overlay whose layers lie on
 * several file systems have some of their own (kernel Documentation/filesystems/overlayfs.rst, "Inode properties").
 */
function mountIdOf(path: string): string | undefined {
  const fd = fs.openSync(path, pathOnly);
  try {
    return /^mnt_id:\s*(\d+)$/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  } finally {
    fs.closeSync(fd);
  }
}
