import fs, { createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { ZipArchive } from 'archiver';
import unzipper from 'unzipper';
import { Problem, reasonOf } from './problem.ts';

/** One plain file of a report: its name there, and its content or where it is read from. */
export type ReportEntry =
  | { readonly name: string; readonly content: string }
  | { readonly name: string; readonly path: string };

/**
 * Writes a report, a zip of plain files that a person can mail; a file that is not there is left out.
 *
 * @returns the names of the files that are in it.
 * @throws Problem `report` where it cannot be written; nothing of it is left then.
 */
export async function writeReport(to: string, entries: readonly ReportEntry[]): Promise<string[]> {
  const archive = new ZipArchive({ zlib: { level: 9 } });
  const present = entries.filter((entry) => 'content' in entry || fs.existsSync(entry.path));
  try {
    const written = pipeline(archive, createWriteStream(to, { mode: 0o600, flags: 'wx' }));
    for (const entry of present) {
      if ('content' in entry) archive.append(entry.content, { name: entry.name, mode: 0o600 });
      else archive.append(fs.readFileSync(entry.path), { name: entry.name, mode: 0o600 });
    }
    await Promise.all([archive.finalize(), written]);
  } catch (error) {
    const taken = (error as NodeJS.ErrnoException).code === 'EEXIST';
    if (!taken) fs.rmSync(to, { force: true });
    const wayOut = taken ? '; name a file that does not exist yet' : '';
    throw new Problem('report', `cannot write ${to}: ${reasonOf(error)}${wayOut}`, { cause: error });
  }
  return present.map(({ name }) => name);
}

/**
 * Reads one file of a report.
 *
 * @throws Problem `report` where the report is no zip, or has no such file.
 */
export async function readReportFile(report: string, name: string): Promise<Buffer> {
  let directory: unzipper.CentralDirectory;
  try {
    directory = await unzipper.Open.file(report);
  } catch (error) {
    throw new Problem('report', `${report} is not a report of tardis: ${reasonOf(error)}`, { cause: error });
  }
  const file = directory.files.find(({ path }) => path === name);
  if (!file)
    throw new Problem('report', `${report} holds no ${name}; expected a report made by tardis report`);
  return file.buffer();
}
