import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** The root file systems that are saved in a scratch directory until their restores have ended (src/actions/rollback.ts). */
export function rollbacksIn(scratchDir: string): string[] {
  const names = (directory: string): string[] => {
    try {
      return readdirSync(directory);
    } catch {
      return [];
    }
  };
  return names(scratchDir).flatMap((boot) => names(join(scratchDir, boot, 'rollback')));
}
