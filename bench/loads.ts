import type { Row, Suite } from './suite.ts';
import { type Field, openField } from './workloads.ts';

/** What a job holds, and how many files of how many bytes it has written. */
export type Load = { title: string; mebibytes: number; files: number; bytes: number };

/** Measures one load with a job of its own. */
export type Measure = (field: Field, id: string, load: Load, runs: number) => Promise<Row>;

const memory = (title: string, mebibytes: number): Load => ({ title, mebibytes, files: 0, bytes: 0 });
const files = (title: string, count: number, bytes: number): Load => ({
  title,
  mebibytes: 1,
  files: count,
  bytes,
});

/** How much there is of what makes one load differ from the next. */
export const sizeOf = ({ mebibytes, files }: Load): number => files || mebibytes;

export const bothKinds: Load[] = [
  memory('64 MiB', 64),
  memory('512 MiB', 512),
  memory('2 GiB', 2048),
  files('20,000 files of 4 KiB', 20_000, 4096),
];

/** Without 20,000 of them, which are among {@link bothKinds}. */
export const fileLoads: Load[] = [
  files('no file', 0, 0),
  files('100 files of 4 KiB', 100, 4096),
  files('2,000 files of 4 KiB', 2000, 4096),
  files('one file of 512 MiB', 1, 512 << 20),
];

/** A suite that measures the same of every load. */
export const forEachLoad =
  (loads: readonly Load[], measure: Measure, config: Record<string, unknown> = {}): Suite =>
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
