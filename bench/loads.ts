import type { Row, Suite } from './suite.ts';
import { type Field, openField } from './workloads.ts';

/** What a job holds, and what it has written. */
export type Load = { title: string; mebibytes: number; files: number };

const loads: Load[] = [
  { title: '64 MiB', mebibytes: 64, files: 0 },
  { title: '512 MiB', mebibytes: 512, files: 0 },
  { title: '2 GiB', mebibytes: 2048, files: 0 },
  { title: '20,000 files of 4 KiB', mebibytes: 1, files: 20_000 },
];

/** A suite that measures the same of every load, each with a job of its own. */
export const forEachLoad =
  (
    measure: (field: Field, id: string, load: Load, runs: number) => Promise<Row>,
    config: Record<string, unknown> = {},
  ): Suite =>
  async ({ runs, said }) => {
    const field = await openField(config);
    const rows: Row[] = [];
    try {
      for (const [i, load] of loads.entries()) {
        said(load.title);
        rows.push(await measure(field, `job-${i}`, load, runs));
      }
      return { rows };
    } finally {
      await field.stack.stop();
    }
  };

/** Two of the largest are in the page cache at once, or one way's writeback is measured with the other. */
export const batchOf = ({ mebibytes }: Load): number => (mebibytes > 1000 ? 2 : 5);
