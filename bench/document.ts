import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { svgOf } from './chart.ts';
import { charts } from './growth.ts';
import type { Result } from './suite.ts';
import { tableOf } from './table.ts';

/*
 * Writes the measured tables into docs/performance.md, between `<!-- bench: SUITE -->` and `<!-- /bench -->`, from
 * docs/performance/SUITE.json, and the charts beside these: no number there is typed by hand. With --check it writes
 * nothing, and fails where one of them does not say what the results say.
 */
const home = join(import.meta.dirname, '..', 'docs');
const page = join(home, 'performance.md');

const made: Record<string, string> = {
  [page]: readFileSync(page, 'utf8').replace(
    /(<!-- bench: ([\w-]+) -->\n)[\s\S]*?(<!-- \/bench -->)/g,
    (_, begin: string, suite: string, end: string) => `${begin}${blockOf(results(suite))}\n${end}`,
  ),
};
for (const [name, chart] of Object.entries(charts))
  made[join(home, 'performance', `growth-${name}.svg`)] = svgOf(chart(results));

for (const [file, text] of Object.entries(made)) {
  if (existsSync(file) && readFileSync(file, 'utf8') === text) continue;
  if (process.argv.includes('--check')) {
    console.error(`${file} is not what docs/performance/*.json say; run: node bench/document.ts`);
    process.exitCode = 1;
  } else writeFileSync(file, text);
}

function results(suite: string): Result {
  const file = join(home, 'performance', `${suite}.json`);
  if (!existsSync(file))
    throw new Error(`found no ${file}, expected results; run: npm run bench -- ${suite}`);
  return JSON.parse(readFileSync(file, 'utf8')) as Result;
}

function blockOf({ machine, rows }: Result): string {
  const where = `${machine.when}, ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Linux ${machine.kernel}`;
  const counts = rows.flatMap(({ ways }) => ways.map(({ runs }) => runs));
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  const runs = least === most ? `${least}` : `${least} to ${most}`;
  return `\n${tableOf(rows)}\n\n${where}; ${machine.versions.join(', ')}; ${runs} runs of each way.\n`;
}
