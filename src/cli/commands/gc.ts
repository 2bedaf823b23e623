import { existsSync, readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { Logger } from 'pino';
import { bytesOf, dueIn, isKey, type Reason, type Rules, removeDue } from '../../actions/gc.ts';
import { type HostConfig, loadHostConfig } from '../../actions/host-config.ts';
import { refuseUnsafeRoot } from '../../actions/image-place.ts';
import { clockOf } from '../../actions/ledger.ts';
import { openLog } from '../../actions/log.ts';
import { Problem, reasonOf } from '../../actions/problem.ts';
import { demandAnswer } from '../../actions/share.ts';
import { logRemoval } from '../../actions/sweep.ts';
import { harmless, sizeOf, spanOf } from '../inspect/text.ts';

export interface GcOptions {
  readonly dryRun?: boolean;
  /** Directories that hold keys' directories; default: those of the host's settings. */
  readonly root?: readonly string[];
  /** In days. */
  readonly unclaimedAfter?: number;
  readonly format: 'text' | 'json';
}

/** What became of one key; its names are part of Tardis's interface. */
interface KeyReport {
  readonly root: string;
  readonly key: string;
  /** Null where it was left alone. */
  readonly reason: Reason | null;
  /** Since the last entry of its ledger. */
  readonly ageSeconds: number;
  /** Generations. */
  readonly images: readonly number[];
  readonly bytes: number;
  /** Whether it is removed: never with --dry-run. */
  readonly removed: boolean;
  /** Why it was left alone, or is not removed; null where it is. */
  readonly problem: string | null;
  /** Whether that is a failure: something that is due, or could not be read. */
  readonly failed: boolean;
}

interface RootReport {
  readonly root: string;
  /** Why nothing of it could be looked at; null where it was. */
  readonly problem: string | null;
}

interface Task {
  readonly config: HostConfig;
  readonly env: NodeJS.ProcessEnv;
  readonly rules: Rules;
  readonly dryRun: boolean;
  /** Opens the host's log where something is to be noted in it. */
  readonly log: () => Logger;
}

/** Where this command is called. */
interface Surroundings {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

const daySeconds = 86_400;
/** As long as a timer can run. */
const patienceMs = 2 ** 31 - 1;

/**
 * Removes the images of finished jobs, and of those that nobody has taken up for so long, below one directory after the other.
 *
 * @returns the exit status: 1 where a directory could not be looked at, or something that is due could not be removed.
 * @throws Problem `host-config`.
 */
export async function gc(
  { dryRun = false, root = [], unclaimedAfter, format }: GcOptions,
  { cwd = process.cwd(), env = process.env, out, err }: Surroundings,
): Promise<number> {
  const { config, warnings } = loadHostConfig(env);
  for (const warning of warnings) err(`tardis: ${warning}\n`);
  const rules = {
    keepFinishedSeconds: config.keepFinishedSeconds,
    unclaimedSeconds: unclaimedAfter === undefined ? undefined : unclaimedAfter * daySeconds,
  };
  const configured = [
    ...new Set([config.checkpointRoot, ...config.allowedRoots].map((path) => resolve(path))),
  ];
  const roots = root.length > 0 ? [...new Set(root.map((path) => resolve(cwd, path)))] : configured;
  let opened: Logger | undefined;
  const log = () => (opened ??= openLog(config.logFile, { command: 'gc', pid: process.pid }));
  const reports: RootReport[] = [];
  const keys: KeyReport[] = [];
  for (const each of roots) {
    const problem = await lookThrough(each, root.length > 0, { config, env, rules, dryRun, log }, (key) => {
      keys.push(key);
      if (format === 'text') (key.problem === null ? out : err)(`${harmless(lineOf(key, dryRun))}\n`);
    });
    reports.push({ root: each, problem });
    if (problem !== null && format === 'text') err(`tardis: ${harmless(problem)}\n`);
  }
  const sum = {
    images: keys.reduce((count, { images }) => count + images.length, 0),
    bytes: keys.reduce((bytes, key) => bytes + key.bytes, 0),
  };
  if (format === 'json') out(`${JSON.stringify({ dryRun, roots: reports, keys, ...sum }, null, 2)}\n`);
  else out(`${sumLine(roots, keys, sum, dryRun)}\n`);
  return keys.some(({ failed }) => failed) || reports.some(({ problem }) => problem !== null) ? 1 : 0;
}

/** @returns why a directory could not be looked at; null where it was. */
async function lookThrough(
  root: string,
  mustBeThere: boolean,
  task: Task,
  tell: (report: KeyReport) => void,
): Promise<string | null> {
  try {
    await demandAnswer({ config: task.config, env: task.env }, root);
    if (!existsSync(root)) {
      if (!mustBeThere) return null;
      throw new Problem('not-found', `found no directory ${root}; expected one that holds keys' directories`);
    }
    refuseUnsafeRoot(task.config, root);
    const began = performance.now();
    const clock = clockOf(root);
    for (const key of readdirSync(root).sort()) {
      const now = clock + performance.now() - began;
      const report = await lookAtKey({ imageRoot: root, key }, now, task);
      if (report) tell(report);
    }
    return null;
  } catch (error) {
    return reasonOf(error);
  }
}

async function lookAtKey(
  place: { readonly imageRoot: string; readonly key: string },
  now: number,
  { config, env, rules, dryRun, log }: Task,
): Promise<KeyReport | undefined> {
  const report = {
    root: place.imageRoot,
    key: place.key,
    ageSeconds: 0,
    images: [],
    bytes: 0,
    removed: false,
    failed: false,
  };
  let reason: Reason | null = null;
  try {
    if (!isKey(place)) return undefined;
    const due = dueIn({ config }, place, now, rules);
    if (!due) return undefined;
    reason = due.reason;
    const found = { ...report, reason, ageSeconds: Math.round(due.ageSeconds), problem: null };
    const looked = { ...found, images: due.generations, bytes: bytesOf(due) };
    if (dryRun) return looked;
    const outcome = await removeDue({ config, env }, due, patienceMs);
    if (outcome === 'taken') return undefined;
    logRemoval({ log: log() }, due);
    return { ...looked, removed: true };
  } catch (error) {
    const isLeftAlone = reason === null && error instanceof Problem;
    return { ...report, reason, problem: reasonOf(error), failed: !isLeftAlone };
  }
}

const reasons: Readonly<Record<Reason, (span: string) => string>> = {
  finished: (span) => `the job ended by itself ${span} ago`,
  unclaimed: (span) => `nobody has taken the job up for ${span}`,
  interrupted: () => 'left half made, or half removed',
  empty: () => 'no image is left',
};

function lineOf(
  { root, key, reason, ageSeconds, images, bytes, problem, failed }: KeyReport,
  dryRun: boolean,
): string {
  const path = `${root}/${key}`;
  if (problem !== null) return `${path}: ${failed ? 'not removed' : 'left alone'}: ${problem}`;
  const why = reason === null ? '' : reasons[reason](spanOf(ageSeconds * 1000));
  return `${path}: ${dryRun ? 'would remove' : 'removed'} ${imagesOf(images.length)}, ${sizeOf(bytes)}: ${why}`;
}

function sumLine(
  roots: readonly string[],
  keys: readonly KeyReport[],
  { images, bytes }: { readonly images: number; readonly bytes: number },
  dryRun: boolean,
): string {
  const { length } = keys.filter(({ problem }) => problem === null);
  if (length === 0) return `nothing to remove in ${roots.join(', ')}`;
  const done = dryRun ? 'would remove' : 'removed';
  return `${done} ${imagesOf(images)} of ${length} ${length === 1 ? 'key' : 'keys'}, ${sizeOf(bytes)}`;
}

const imagesOf = (count: number): string => `${count} ${count === 1 ? 'image' : 'images'}`;

const details = `
gc removes:
- the images of a job that ended by itself, keepFinishedSeconds after that (a host's setting; 7 days), unless the job's own
  TARDIS_RESUME_AFTER resumes it then;
- what a killed wrapper or an interrupted removal has left;
- with --unclaimed-after, the images of every job that nobody has taken up for so many days.

--unclaimed-after is at your own risk. A job that is started again later starts from scratch. A job that runs on this host
keeps its images. A job that runs on another host loses them if it was created, and made its last checkpoint, more than so
many days ago; it can still make new ones. Give more days than any job runs without a checkpoint.

gc looks for keys directly in checkpointRoot and in each of allowedRoots, not deeper. Name a TARDIS_CHECKPOINT_HOST_PATH below
them with --root. It ignores directories without a ledger. It names each key that it leaves alone because others than root may
write there, or because this Tardis cannot understand the ledger.

Exit status: 1 if a directory or a key cannot be read, or something cannot be removed; else 0.

The keys of --format json:
  dryRun
  roots          a list of root, problem (why it could not be looked at, or null)
  keys           a list of root, key, reason, ageSeconds, images (generations), bytes, removed, problem, failed;
                 reason is finished, unclaimed, interrupted, empty, or null where problem says why the key was left alone;
                 ageSeconds is how long ago something was last noted of the job
  images, bytes  sums
`;

/** `tardis gc`. */
export function gcCommand(): Command {
  return new Command('gc')
    .summary('remove images that nobody needs any more')
    .description('Remove the images of finished jobs, and of those that nobody has taken up for long.')
    .option('--dry-run', 'say what would be removed, and remove nothing')
    .option('--root <dir>', 'a directory that holds keys; may be given several times', collect)
    .option('--unclaimed-after <days>', 'also images of jobs that nobody has taken up for so long', parseDays)
    .addOption(new Option('--format <format>', 'how to print it').choices(['text', 'json']).default('text'))
    .addHelpText('after', details)
    .action(async (options: GcOptions) => {
      process.exitCode = await gc(options, {
        out: (text) => process.stdout.write(text),
        err: (text) => process.stderr.write(text),
      });
    });
}

const collect = (path: string, paths: readonly string[] = []): string[] => [...paths, path];

function parseDays(text: string): number {
  const days = /^\d{1,5}(\.\d{1,3})?$/.test(text) ? Number(text) : 0;
  if (days >= 1) return days;
  throw new InvalidArgumentError('Expected a number of days, 1 or more, such as 30.');
}
