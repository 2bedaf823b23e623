import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** A file's text; nothing where it cannot be read: a process that has ended, a counter that this kernel lacks. */
export function textOf(path: string, encoding: 'utf8' | 'latin1' = 'utf8'): string {
  return orNothing(() => readFileSync(path, encoding), '');
}

/** The names in a directory; none where it cannot be read. */
export const namesIn = (directory: string): string[] => orNothing(() => readdirSync(directory), []);

/** Where a symlink leads; nothing where it cannot be read. */
export const targetOf = (link: string): string => orNothing(() => readlinkSync(link), '');

function orNothing<Value>(read: () => Value, nothing: Value): Value {
  try {
    return read();
  } catch {
    return nothing;
  }
}
