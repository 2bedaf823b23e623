import fs from 'node:fs';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { defaultConfig, type HostConfig, loadHostConfig } from '../../actions/host-config.ts';
import { type ReportEntry, writeReport } from '../../actions/report-archive.ts';
import { findState } from '../inspect/find-state.ts';
import { reportOn } from '../inspect/report.ts';
import { textOf } from '../inspect/text.ts';

/**
 * Writes what a person needs to say why a checkpoint or a restore failed: the state, the manifest, the logs of runc
 * and CRIU, and Tardis's own log lines of that container. Never the job's memory, files, environment, or command
 * lines.
 *
 * @returns the names of the files in the report.
 * @throws Problem for what cannot be found, read, or written.
 */
export async function report(
  target: string,
  to: string,
  {
    cwd = process.cwd(),
    env = process.env,
  }: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<string[]> {
  const config = configOf(env);
  const stateFile = findState(target, { cwd, runDir: () => config.runDir });
  const about = reportOn(stateFile, Number.POSITIVE_INFINITY);
  const image = about.image?.directory;
  const entries: ReportEntry[] = [
    { name: 'inspect.txt', content: textOf(about, Date.now()) },
    { name: 'inspect.json', content: `${JSON.stringify(about, null, 2)}\n` },
    { name: 'tardis.jsonl', content: linesAbout(about.id, config.logFile) },
    { name: 'restore.log', path: join(about.bundle, 'tardis-restore', 'restore.log') },
    { name: 'criu-dump.log', path: join(about.bundle, 'criu-dump.log') },
    { name: 'log.json', path: join(about.bundle, 'log.json') },
    ...(image
      ? [
          { name: 'image/dump.log', path: join(image, 'dump.log') },
          { name: 'image/failed.jsonl', path: `${image}.failed.jsonl` },
        ]
      : []),
  ];
  return writeReport(resolve(cwd, to), entries);
}

function configOf(env: NodeJS.ProcessEnv): HostConfig {
  try {
    return loadHostConfig(env).config;
  } catch {
    return defaultConfig(env);
  }
}

function linesAbout(id: string, logFile: string): string {
  if (!fs.existsSync(logFile)) return '';
  const mark = `"id":${JSON.stringify(id)}`;
  return fs
    .readFileSync(logFile, 'utf8')
    .split('\n')
    .filter((line) => line.includes(mark))
    .map((line) => `${line}\n`)
    .join('');
}

/** `tardis report`. */
export function reportCommand(): Command {
  return new Command('report')
    .summary('write what is needed to say why something failed')
    .description(
      "Write a zip with a container's state, history, and logs; never its memory, files, environment, or command lines.",
    )
    .argument('<container>', "a container's id, its bundle, or a state file")
    .argument('<file>', 'the zip to write; it must not exist yet')
    .action(async (container: string, file: string) => {
      const names = await report(container, file);
      process.stdout.write(`${file}: ${names.join(', ')}\n`);
    });
}
