import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../test/support/run.ts';
import { type Spread, spreadOf } from './statistics.ts';

/** One way to do something: its first is the baseline that the others are compared with. */
export type Way = {
  name: string;
  /** Shell lines; one line without quotes is run without a shell. */
  command: string;
  /** Shell lines before each run, which are not measured. */
  prepare?: string;
};

/** Milliseconds of wall time. */
export type Measured = Spread & { name: string };

export type Plan = {
  /** Measured runs of each way; at least 20 for a result that is shown. */
  runs?: number;
  /** How many of one way come right after each other: the ways take turns, so that the machine's moods befall all. */
  batch?: number;
  env?: Record<string, string>;
};

/**
 * Measures several ways with hyperfine, in turns, after one unmeasured run of each.
 *
 * @throws where a way ends with another status than 0.
 */
export async function sideBySide(
  ways: readonly Way[],
  { runs = 20, batch = 5, env = {} }: Plan = {},
): Promise<Measured[]> {
  const directory = mkdtempSync(join(tmpdir(), 'tardis-bench-'));
  const results = join(directory, 'results.json');
  const scripts = ways.map((way, i) => ({
    command: wordsOf(way.command) ?? script(join(directory, `way-${i}`), way.command),
    // What one way has left to be written to the disk would slow the next one's writes down.
    prepare: script(join(directory, `prepare-${i}`), `${way.prepare ?? ':'}\nsync`),
  }));
  const times = ways.map((): number[] => []);
  const measure = async (i: number, count: number): Promise<number[]> => {
    const { command, prepare } = scripts[i] as (typeof scripts)[number];
    const words = [
      '--shell=none',
      '--style=none',
      `--runs=${count}`,
      `--prepare=${prepare}`,
      `--export-json=${results}`,
    ];
    await run('hyperfine', [...words, command], {
      env: { PATH: process.env.PATH ?? '', ...env },
      timeoutMs: 3_600_000,
      cwd: directory,
    });
    const said = JSON.parse(readFileSync(results, 'utf8')) as { results: [{ times: number[] }] };
    return said.results[0].times.map((seconds) => seconds * 1000);
  };
  try {
    for (const i of ways.keys()) await measure(i, 1);
    for (let round = 0; (times[0] as number[]).length < runs; round++) {
      const count = Math.min(batch, runs - (times[0] as number[]).length);
      for (const k of ways.keys()) {
        const i = (k + round) % ways.length;
        (times[i] as number[]).push(...(await measure(i, count)));
      }
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
  return ways.map(({ name }, i) => ({ name, ...spreadOf(times[i] as number[]) }));
}

/** hyperfine splits words at blanks where it uses no shell. */
const wordsOf = (command: string): string | undefined =>
  /^[\w/.=: -]+$/.test(command) ? command : undefined;

function script(path: string, lines: string): string {
  writeFileSync(path, `#!/bin/sh\nset -e\n${lines}\n`);
  chmodSync(path, 0o755);
  return path;
}
