import { Command, InvalidArgumentError, Option } from 'commander';
import { loadHostConfig } from '../../actions/host-config.ts';
import { findState } from '../inspect/find-state.ts';
import { reportOn } from '../inspect/report.ts';
import { textOf } from '../inspect/text.ts';

export interface InspectOptions {
  readonly root?: string;
  readonly format: 'text' | 'json';
  /** At most so many entries of the history. */
  readonly history: number;
}

/**
 * What Tardis knows of one container, as the text to print. Starts nothing, locks nothing, and writes nothing.
 *
 * @param target a container's id, its bundle, or a state file; paths are relative to `cwd`.
 * @throws Problem for what cannot be found or read; its message is for the operator.
 */
export function inspect(
  target: string,
  { root, format, history }: InspectOptions,
  {
    cwd = process.cwd(),
    env = process.env,
  }: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): string {
  const stateFile = findState(target, {
    ...{ cwd, runDir: () => loadHostConfig(env).config.runDir },
    ...(root === undefined ? {} : { root }),
  });
  const report = reportOn(stateFile, history);
  return format === 'json' ? `${JSON.stringify(report, null, 2)}\n` : textOf(report, Date.now());
}

const details = `
A word without a slash is looked for as an id first. Nothing is started, locked, or changed; the
container's environment is never shown.

The keys of --format json:
  id, key, bundle, root, imageRoot   who the container is, and where its things are
  stateFile, writtenAt               the file that this was read from
  state, step                        such as "alive.checkpointing" and "dumping"; step may be null
  words                              the same for people: state, step, note
  inTheMiddle                        true: a wrapper is at work, or died there
  unfinishedImage                    generation, directory; or null
  failure                            message, code, status (runc's, where it was runc that failed); or null
  life                               epoch, refused, latestEpoch; or null
  image                              generation, directory, exists, isCurrent, currentGeneration,
                                     createdAt, bytes, files, problem; or null
  next                               a list of event, to (the states that it may lead to)
  history, historyLeftOut            a list of at, event, from, to, ms; and how many older ones there are
`;

/** `tardis inspect`. */
export function inspectCommand(): Command {
  return new Command('inspect')
    .summary('say what Tardis knows of one container')
    .description('Say what Tardis knows of one container: its state, image, failure, and history.')
    .argument('<container>', "a container's id, its bundle, or a state file")
    .option('--root <root>', "runc's state directory, where several have a container of that id")
    .addOption(new Option('--format <format>', 'how to print it').choices(['text', 'json']).default('text'))
    .option('--history <entries>', 'how many of the latest history entries to show', parseCount, 20)
    .addHelpText('after', details)
    .action((container: string, options: InspectOptions) => {
      process.stdout.write(inspect(container, options));
    });
}

function parseCount(text: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('Expected a whole number, such as 50, or 0 for none.');
}
