import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Measured } from './side-by-side.ts';
import { spreadOf } from './statistics.ts';
import { quietly } from './workloads.ts';

/**
 * The largest resident set of a command and of all that it waits for, in MiB (GNU time, `%M`).
 *
 * @param prepare shell lines before each run.
 */
export async function peakMemory(
  name: string,
  command: string,
  { prepare = ':', runs = 5, env }: { prepare?: string; runs?: number; env: Record<string, string> },
): Promise<Measured> {
  const directory = mkdtempSync(join(tmpdir(), 'tardis-bench-'));
  const peak = join(directory, 'peak');
  const peaks: number[] = [];
  for (let i = 0; i < runs; i++) {
    await quietly({ env }, prepare);
    await quietly({ env }, `env time --format=%M --output=${peak} ${command}`);
    peaks.push(Number(readFileSync(peak, 'utf8')) / 1024);
  }
  rmSync(directory, { recursive: true });
  return { name, ...spreadOf(peaks) };
}
