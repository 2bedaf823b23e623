import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fixturesDir, whichOrThrow } from './paths.ts';
import type { Stack } from './stack.ts';

export type CountingCriu = {
  /** How many CRIUs worked at once, at most, since the stack was started. */
  mostAtOnce(kind: 'checkpoint' | 'restore'): number;
};

/** Puts a criu that counts its like before the real one, for this stack. */
export function installCountingCriu(stack: Stack): CountingCriu {
  const file = (name: string) => join(stack.binDir, name);
  writeFileSync(file('criu.real'), `${whichOrThrow('criu', stack.env.PATH)}\n`);
  for (const kind of ['checkpoint', 'restore']) mkdirSync(file(`criu.${kind}`));
  copyFileSync(join(fixturesDir, 'counting-criu'), file('criu'));
  return {
    mostAtOnce(kind) {
      const counts = file(`criu.${kind}.counts`);
      if (!existsSync(counts)) return 0;
      return Math.max(...readFileSync(counts, 'utf8').trim().split('\n').map(Number));
    },
  };
}
