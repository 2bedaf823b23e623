import fs from 'node:fs';

/** The last line of a log, without its time; undefined where there is none. */
export function lastLine(path: string): string | undefined {
  try {
    const lines = fs.readFileSync(path, 'latin1').trimEnd().split('\n');
    return lines.at(-1)?.replace(/^\([\d.]+\)\s*/, '') || undefined;
  } catch {
    return undefined;
  }
}

/** CRIU says this of a limit that it only tried to raise for itself; it fails nothing. */
const harmless = /Can't setup RLIMIT_NOFILE for self/;

/**
 * The errors in a CRIU log, the last three in one line, such as
 * `criu/files-ext.c:95: Can't dump file 7 of that type [20666] (chr 10:200)`; undefined where there are none.
 */
export function lastCriuErrors(path: string): string | undefined {
  let text: string;
  try {
    text = fs.readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
  const errors = [...text.matchAll(/^\([\d.]+\)\s*(?:(?:pie: )?\d+: )?Error \(([^)]*)\): (.*)$/gm)]
    .map(([, place, words]) => `${place}: ${words}`)
    .filter((line) => !harmless.test(line) && !/(Dumping|Restoring) FAILED/.test(line));
  return errors.length > 0 ? errors.slice(-3).join('; ') : undefined;
}
