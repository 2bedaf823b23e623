import type { Chart, Line } from './chart.ts';
import type { Result, Row } from './suite.ts';

/** The results of all suites, by their names. */
export type Results = (suite: string) => Result;

/** How cost grows, each with what no program could undercut on the same machine: docs/performance/growth-*.svg. */
export const charts: Record<string, (results: Results) => Chart> = {
  memory: (results) => {
    const memory = ({ rows }: Result): Row[] => rows.filter(({ title }) => /^\S+ [MG]iB$/.test(title));
    return {
      title: 'Checkpoint and restore over memory',
      sizes: 'MiB of incompressible memory',
      lines: [
        ...both('checkpoint', memory(results('checkpoint'))),
        ...both('restore', memory(results('restore'))),
        ...limitsOver(results, [64, 2048], (mebibytes) => mebibytes),
      ],
    };
  },
  files: (results) => {
    const some = (kind: string): Row[] => [
      ...results('rootfs').rows.filter(({ title }) => title.startsWith(`${kind}: `)),
      ...results(kind).rows,
    ];
    const ofFiles = (rows: Row[]): Row[] => rows.filter(({ title }) => title.endsWith('files of 4 KiB'));
    return {
      title: 'Checkpoint and restore over changed files',
      sizes: 'files of 4 KiB',
      lines: [
        ...both('checkpoint', ofFiles(some('checkpoint'))),
        ...both('restore', ofFiles(some('restore'))),
        ...limitsOver(results, [100, 20_000], (files) => (files * 4) / 1024).slice(0, 2),
      ],
    };
  },
  containers: (results) => {
    const chosen = (start: string): Row[] =>
      results('density').rows.filter(({ title }) => title.startsWith(start));
    return {
      title: 'One command, and all checkpoints at once, over containers on the host',
      sizes: 'containers',
      lines: [
        ...both('state', chosen('`state`')),
        ...both('one checkpoint', chosen('one checkpoint')),
        ...both('all checkpoints', chosen('all checkpoints')),
      ],
    };
  },
};

/** The baseline's line and ours. */
function both(what: string, rows: readonly Row[]): Line[] {
  const sorted = [...rows].sort((a, b) => (a.size ?? 0) - (b.size ?? 0));
  return [0, 1].map((i) => ({
    name: i === 0 ? `${what}: without Tardis` : `${what}: Tardis`,
    kind: 'measured',
    points: sorted.map(({ size = 0, ways }) => [size, ways[i]?.median ?? 0]),
  }));
}

/** What moving so many bytes takes at least, for each of the limits that were measured. */
function limitsOver(results: Results, ends: number[], mebibytesOf: (size: number) => number): Line[] {
  const [row] = results('limits').rows;
  if (!row?.size) throw new Error('found no limits, expected one row of them; run: npm run bench -- limits');
  const perMebibyte = row.size;
  return row.ways.map(({ name, median }) => ({
    name,
    kind: 'limit',
    points: ends.map((size) => [size, (mebibytesOf(size) * median) / perMebibyte]),
  }));
}
