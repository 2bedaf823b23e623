import { mkdirSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';

/** A new, empty directory in `parent` whose name begins with `name`. */
export function freshDirectory(parent: string, name: string): string {
  mkdirSync(parent, { recursive: true });
  return mkdtempSync(join(parent, `${name}-`));
}
