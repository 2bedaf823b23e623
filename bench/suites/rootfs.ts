import { fileLoads, forEachLoad } from '../loads.ts';
import type { Suite } from '../suite.ts';
import { checkpointRow } from './checkpoint.ts';
import { restoreRow } from './restore.ts';

const parts: [title: string, suite: Suite][] = [
  ['checkpoint', forEachLoad(fileLoads, checkpointRow, { keep: 1 })],
  ['restore', forEachLoad(fileLoads, restoreRow)],
];

/** What changed files add to a checkpoint and to a restore of a small job. */
export const rootfs: Suite = async (options) => {
  const rows = [];
  for (const [title, suite] of parts) {
    options.said(title);
    const result = await suite(options);
    rows.push(...result.rows.map((row) => ({ ...row, title: `${title}: ${row.title}` })));
  }
  return { rows };
};
