import { processes } from '../../src/actions/processes.ts';
import { textOf } from '../../src/actions/read-or-nothing.ts';

/** The words of a process's command line; none where it is gone, or is a kernel's own. */
export const wordsOf = (pid: number): string[] => textOf(`/proc/${pid}/cmdline`).split('\0').slice(0, -1);

/** The processes whose words are such. */
export const processesBy = (isSuch: (words: readonly string[]) => boolean): number[] =>
  processes().filter((pid) => isSuch(wordsOf(pid)));
