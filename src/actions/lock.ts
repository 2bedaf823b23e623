import { join } from 'node:path';
import fs from 'fs-extra';
import { lockDescriptor } from './flock.ts';
import { Problem } from './problem.ts';

export interface Lock {
  release(): void;
  /** Releases the lock and removes its file: the container is gone. */
  discard(): void;
}

/**
 * Takes the kernel's lock for one container, so that its lifecycle commands come one after another.
 *
 * @param timeoutSeconds how long to wait; 0 only tries.
 * @throws Problem `locked` where the time is up; `lock` where locking itself fails.
 */
export function takeLock(runDir: string, root: string, id: string, timeoutSeconds: number): Lock {
  const path = join(runDir, 'locks', root, id);
  fs.mkdirSync(join(path, '..'), { recursive: true, mode: 0o700 });
  for (;;) {
    const fd = fs.openSync(path, 'a', 0o600);
    try {
      if (lockDescriptor(fd, path, timeoutSeconds) === 'busy') {
        throw new Problem(
          'locked',
          `another command has been working on container ${id} for ${timeoutSeconds} s`,
        );
      }
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
    // The one before us may have discarded the file while we waited: then what we hold locks nobody out.
    if (fs.statSync(path, { throwIfNoEntry: false })?.ino === fs.fstatSync(fd).ino) {
      return {
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
