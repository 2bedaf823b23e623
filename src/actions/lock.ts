import fs from 'node:fs';
import { join } from 'node:path';
import { lockDescriptor } from './flock.ts';
import { endTrees, holdersOf, orphansOf } from './orphans.ts';
import { Problem } from './problem.ts';

export interface Lock {
  /** For the programs that do the wrapper's work: they hold the lock with it, and after its death (runc.ts). */
  readonly descriptor: number;
  release(): void;
  /** Releases the lock and removes its file: the container is gone. */
  discard(): void;
}

export interface LockOptions {
  /** How long to wait for whoever has the lock; 0 only tries. */
  readonly timeoutSeconds: number;
  /** How long to wait for what a dead wrapper has left at work, before it is ended; default: as long as for others. */
  readonly orphanSeconds?: number;
  /**
   * How long to wait for a wrapper that lives, before it is ended with all that works for it; default: for the whole
   * time, and it is not ended then.
   */
  readonly wrapperSeconds?: number;
  /** Told of the processes that were ended. */
  readonly onOrphans?: (pids: readonly number[]) => void;
}

/**
 * Takes the kernel's lock for one container, so that its lifecycle commands come one after another.
 *
 * The lock stays ours until we close it or die, and so do those that we handed it to. Those that outlive their wrapper
 * are waited for, then ended (docs/decisions/0013-orphans-hold-the-lock.md).
 *
 * @throws Problem `locked` where the time is up; `lock` where locking itself fails.
 */
export function takeLock(runDir: string, root: string, id: string, options: LockOptions): Lock {
  const path = join(runDir, 'locks', root, id);
  fs.mkdirSync(join(path, '..'), { recursive: true, mode: 0o700 });
  for (;;) {
    const fd = fs.openSync(path, 'a', 0o600);
    try {
      lockOrEndOrphans(fd, path, id, options);
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
    // The one before us may have discarded the file while we waited: then what we hold locks nobody out.
    if (fs.statSync(path, { throwIfNoEntry: false })?.ino === fs.fstatSync(fd).ino) {
      return {
        descriptor: fd,
        release: () => fs.closeSync(fd),
        discard: () => {
          fs.rmSync(path, { force: true });
          fs.closeSync(fd);
        },
      };
    }
    fs.closeSync(fd);
  }
}

/** As long as somebody waits who wants it gone. */
const forcedSeconds = 1;

/** How long a killed process may take to end: one that sleeps uninterruptibly (on a dead NFS server) never does. */
const endingSeconds = 10;

function lockOrEndOrphans(fd: number, path: string, id: string, options: LockOptions): void {
  const { timeoutSeconds, orphanSeconds = timeoutSeconds, wrapperSeconds, onOrphans } = options;
  if (wrapperSeconds !== undefined) {
    lockOrEndAll(fd, path, id, wrapperSeconds, options);
    return;
  }
  const patience = Math.min(orphanSeconds, timeoutSeconds);
  for (const seconds of [patience, timeoutSeconds - patience]) {
    if (isLocked(fd, path, seconds)) return;
    const orphans = timeoutSeconds === 0 ? [] : orphansOf(fs.readlinkSync(`/proc/self/fd/${fd}`));
    if (orphans.length === 0) continue;
    const ended = endTrees(orphans);
    onOrphans?.(ended);
    if (isLocked(fd, path, endingSeconds)) return;
  }
  throw new Problem('locked', `another command has been working on container ${id} for ${timeoutSeconds} s`);
}

/** For a container that is to be gone, whatever else is being done with it. */
function lockOrEndAll(
  fd: number,
  path: string,
  id: string,
  wrapperSeconds: number,
  options: LockOptions,
): void {
  if (isLocked(fd, path, 0)) return;
  const file = fs.readlinkSync(`/proc/self/fd/${fd}`);
  const orphans = orphansOf(file);
  if (orphans.length === 0 && isLocked(fd, path, wrapperSeconds)) return;
  const ended = endTrees(orphans.length > 0 ? orphans : holdersOf(file).map(({ pid }) => pid));
  options.onOrphans?.(ended);
  if (isLocked(fd, path, forcedSeconds)) return;
  throw new Problem('locked', `what works on container ${id} cannot be ended: it sleeps in the kernel`);
}

/** Whether the lock was had in time. */
const isLocked = (fd: number, path: string, timeoutSeconds: number): boolean =>
  lockDescriptor(fd, path, timeoutSeconds) === 'locked';
