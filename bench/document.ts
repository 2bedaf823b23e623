import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Result } from './suite.ts';
import { tableOf } from './table.ts';

/*
 * Writes the measured tables into docs/performance.md, between `<!-- bench: SUITE -->` and `<!-- /bench -->`, from
 * docs/performance/SUITE.json: no number there is typed by hand. With --check it writes nothing, and fails where the page
 * does not say what the results say.
 */
const home = join(import.meta.dirname, '..', 'docs');
const page = join(home, 'performance.md');
const text = readFileSync(page, 'utf8');
const made = text.replace(
  /(<!-- bench: ([\w-]+) -->\n)[\s\S]*?(<!-- \/bench -->)/g,
  (_, begin: string, suite: string, end: string) => `${begin}${blockOf(suite)}\n${end}`,
);

if (!process.argv.includes('--check')) writeFileSync(page, made);
else if (made !== text) {
  console.error('docs/performance.md is not what docs/performance/*.json say; run: node bench/document.ts');
  process.exit(1);
}

function blockOf(suite: string): string {
  const file = join(home, 'performance', `${suite}.json`);
  if (!existsSync(file))
    throw new Error(`found no ${file}, expected results; run: npm run bench -- ${suite}`);
  const { machine, runs, rows } = JSON.parse(readFileSync(file, 'utf8')) as Result;
  const where = `${machine.when}, ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Linux ${machine.kernel}`;
  return `\n${tableOf(rows)}\n\n${where}; ${machine.versions.join(', ')}; ${runs} runs of each way or more.\n`;
}
