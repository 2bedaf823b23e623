import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { withLock } from './lock.ts';
import { cacheDir } from './paths.ts';

/**
 * The directory `<cache>/<name>`, filled by `build` if no run has done so yet. It appears by rename when it is
 * complete, so an interrupted build leaves nothing that could be taken for one.
 */
export async function cached(name: string, build: (dir: string) => Promise<void>): Promise<string> {
  const place = join(cacheDir, name);
  if (existsSync(place)) return place;
  mkdirSync(cacheDir, { recursive: true, mode: 0o755 });
  return withLock(join(cacheDir, 'lock'), async () => {
    if (existsSync(place)) return place; // Another run built it while this one waited.
    const fresh = mkdtempSync(`${place}.new-`);
    try {
      await build(fresh);
      renameSync(fresh, place);
    } finally {
      rmSync(fresh, { recursive: true, force: true });
    }
    return place;
  });
}
