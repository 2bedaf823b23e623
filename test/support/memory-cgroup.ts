import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { waitFor } from './wait.ts';

const v1 = '/sys/fs/cgroup/memory';
const isV1 = existsSync(v1);

/** A cgroup in whose memory there is no room for those that are in it, as soon as a test wants it so. */
export class MemoryCgroup {
  readonly directory: string;

  /** @param name below the root of the controller, such as `STACK-direct/job`: the stack's sweep finds it by that. */
  constructor(name: string) {
    this.directory = join(isV1 ? v1 : '/sys/fs/cgroup', name);
    mkdirSync(this.directory, { recursive: true });
  }

  /** Leaves no room: who asks for a page more is killed, or the largest one is. May have to be said more than once. */
  tighten(): void {
    const limit = join(this.directory, isV1 ? 'memory.limit_in_bytes' : 'memory.max');
    const used = join(this.directory, isV1 ? 'memory.usage_in_bytes' : 'memory.current');
    try {
      // The kernel kills for v2's limit at once, and refuses v1's as long as more is in use.
      writeFileSync(limit, isV1 ? readFileSync(used, 'utf8').trim() : '0');
    } catch {
      // More is used by now.
    }
  }

  async remove(): Promise<void> {
    await waitFor(`${this.directory} to be empty`, () => {
      rmdirSync(this.directory);
      return true;
    });
  }
}
