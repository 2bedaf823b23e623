import type { Measured } from './side-by-side.ts';
import { excessOf, type Row, ratioOf } from './suite.ts';

const number = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
const spread = ({ median, q1, q3 }: Measured, unit: string): string =>
  `${number(median)} ${unit} (${number(q1)} to ${number(q3)})`;

/** Rows as a Markdown table: medians, and the quartiles in parentheses. */
export function tableOf(rows: readonly Row[]): string {
  const lines = rows.flatMap((row) =>
    row.ways.map((way, i) => {
      const first = i === 0;
      const compared = first
        ? ''
        : i === 1
          ? `${ratioOf(row).toFixed(2)} ×, ${excessOf(row) < 0 ? '−' : '+'}${number(Math.abs(excessOf(row)))} ${row.unit}`
          : `${(way.median / (row.ways[0] as Measured).median).toFixed(2)} ×`;
      const asked =
        i === 1 && row.target !== undefined ? `${row.target}: ${row.met ? 'met' : '**not met**'}` : '';
      const beside =
        i === 1
          ? Object.entries(row.beside ?? {})
              .map(([name, value]) => `${name}: ${number(value)}`)
              .join('; ')
          : '';
      return `| ${[first ? row.title : '', way.name, spread(way, row.unit), compared, asked, beside].join(' | ')} |`;
    }),
  );
  return [
    '| | way | median (half of all runs) | against the first | asked | beside it |',
    '|---|---|---|---|---|---|',
    ...lines,
  ].join('\n');
}
