import type { Machine } from './machine.ts';
import type { Measured } from './side-by-side.ts';

/** One comparison: the first way is the baseline, and a target says how much more another may take. */
export type Row = {
  title: string;
  unit: 'ms' | 'MiB';
  ways: Measured[];
  /** What the issue of speed asks of the second way, for people: `≤ 1.10 × runc + cp -a`. */
  target?: string;
  /** Whether the second way meets it; undefined where nothing is asked. */
  met?: boolean;
  /** How much there is of what grows: MiB of memory, files, containers. Its rows are a curve (growth.ts). */
  size?: number;
  /** Anything measured beside it, by name. */
  beside?: Record<string, number>;
};

export type SuiteResult = { rows: Row[] };

export type SuiteOptions = {
  /** Measured runs of each way. */
  runs: number;
  said: (line: string) => void;
};

export type Suite = (options: SuiteOptions) => Promise<SuiteResult>;

const ways = (row: Pick<Row, 'ways'>): [Measured, Measured] => {
  const [baseline, ours] = row.ways;
  if (!baseline || !ours)
    throw new Error('found fewer than two ways, expected a baseline and one to compare');
  return [baseline, ours];
};

/** How many times the baseline's median the second way's is. */
export const ratioOf = (row: Pick<Row, 'ways'>): number => {
  const [baseline, ours] = ways(row);
  return ours.median / baseline.median;
};

/** How much more than the baseline's median the second way's is. */
export const excessOf = (row: Pick<Row, 'ways'>): number => {
  const [baseline, ours] = ways(row);
  return ours.median - baseline.median;
};

export const atMostTimes = (row: Omit<Row, 'target' | 'met'>, factor: number): Row => ({
  ...row,
  target: `≤ ${factor.toFixed(2)} ×`,
  met: ratioOf(row) <= factor,
});

export const atMostMore = (row: Omit<Row, 'target' | 'met'>, more: number): Row => ({
  ...row,
  target: `≤ ${more} ${row.unit} more`,
  met: excessOf(row) <= more,
});

/** What `docs/performance/<suite>.json` holds. */
export type Result = SuiteResult & { suite: string; runs: number; machine: Machine };
