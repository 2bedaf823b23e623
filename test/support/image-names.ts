import { readdirSync } from 'node:fs';

/** What is in a checkpoint key's directory, but for its ledger: images, whole and partial, marks, and `current`. */
export const imageNames = (directory: string): string[] =>
  readdirSync(directory)
    .filter((name) => name !== 'ledger')
    .sort();
