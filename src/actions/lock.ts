import fs from 'node:fs';
import { join } from 'node:path';
import { lockDescriptor } from './flock.ts';
import { endTrees, orphansOf } from './orphans.ts';
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

/** How long a killed process may take to end: one that sleeps uninterruptibly (on a dead NFS server) never does. */
const endingSeconds = 10;

function lockOrEndOrphans(fd: number, path: string, id: string, options: LockOptions): void {
  const { timeoutSeconds, orphanSeconds = timeoutSeconds, onOrphans } = options;
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

/** Whether the lock was had in time. */
const isLocked = (fd: number, path: string, timeoutSeconds: number): boolean =>
  lockDescriptor(fd, path, timeoutSeconds) === 'locked';
