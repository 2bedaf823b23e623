import { join, resolve } from 'node:path';
import type { ContainerEvent } from '../machines/container-context.ts';
import type { RuncCall, Shim } from '../machines/vocabulary.ts';
import { containerId, flagSet, flagValue, globalSet, globalValue, type RuncCommand } from './runc-command.ts';

/** What a command line asks of Tardis. */
export interface Plan {
  readonly id: string;
  /** runc's state directory, absolute. */
  readonly root: string;
  /** Only a command that begins a container's life names its bundle; for the others the index knows it. */
  readonly bundle?: string;
  readonly call: RuncCall;
  readonly event: ContainerEvent;
  /** Only noted: the real runc then takes the process over, because it must not wait, or lasts as long as the job. */
  readonly handsOver: boolean;
  /** The signal by which the caller asks the job to end, as the caller has it. */
  readonly endsJobBy?: string;
}

/** runc's own default where root runs it (main.go); the shim always names another. */
export const defaultRoot = '/run/runc';

/** What runc takes for an id (libcontainer/factory_linux.go), less the two that are directories. */
export const idForm = /^(?!\.\.?$)[\w+.-]+$/;

/** Dumps that are no whole image, or none that a later `create` could use: runc's alone. */
const partialDumps = ['pre-dump', 'lazy-pages', 'page-server', 'parent-path'];

/**
 * Says what a command line asks of Tardis; undefined where it is runc's alone.
 *
 * @param cwd the caller's working directory, against which runc resolves relative paths.
 * @param shim the caller, where it is one.
 */
export function planFor(command: RuncCommand, cwd: string, shim?: Shim): Plan | undefined {
  const id = containerId(command);
  if (!command.understood || !command.name || !id || !idForm.test(id)) return undefined;
  if (flagSet(command, 'help')) return undefined;
  const root = resolve(cwd, globalValue(command, 'root') ?? defaultRoot);
  const call = { ...callOf(command, cwd), ...(shim ? { shim } : {}) };
  const bundle = resolve(cwd, flagValue(command, 'bundle') ?? '.');
  const plan = { id, root, call, handsOver: false };
  switch (command.name) {
    case 'create':
      return { ...plan, bundle, event: { type: 'CREATE', call } };
    case 'run': {
      const detach = flagSet(command, 'detach');
      return { ...plan, bundle, event: { type: 'RUN', call, detach }, handsOver: !detach };
    }
    case 'restore': {
      const detach = flagSet(command, 'detach');
      const event = { type: 'RESTORE', call: withFileLocks(command, call), detach } as const;
      return { ...plan, bundle, event, handsOver: !detach };
    }
    case 'checkpoint':
      return partialDumps.some((name) => command.flags.some((flag) => flag.name === name))
        ? undefined
        : { ...plan, event: { type: 'CHECKPOINT', call, request: checkpointRequestOf(command, cwd) } };
    case 'start':
      return { ...plan, event: { type: 'START', call } };
    case 'pause':
      return { ...plan, event: { type: 'PAUSE', call } };
    case 'resume':
      return { ...plan, event: { type: 'RESUME', call } };
    case 'delete':
      return { ...plan, event: { type: 'DELETE', call } };
    case 'kill':
      return {
        ...plan,
        event: { type: 'KILL', call },
        ...(endsJob(command.positionals[1]) ? { endsJobBy: command.positionals[1] ?? 'SIGTERM' } : {}),
        handsOver: true,
      };
    default:
      return undefined;
  }
}

/** Why there is no plan for a checkpoint; undefined where the caller asks for no checkpoint at all (`--help`). */
export function whyNoPlan(command: RuncCommand): string | undefined {
  if (!command.understood) return command.reason ?? 'its command line is not understood';
  if (flagSet(command, 'help') || command.name !== 'checkpoint') return undefined;
  const partial = partialDumps.find((name) => command.flags.some((flag) => flag.name === name));
  // A pre-dump ends nothing and is no image.
  if (partial === undefined || partial === 'pre-dump') return undefined;
  return `--${partial} makes no whole image; expected a checkpoint without it`;
}

/** Signals that do not ask a job to end: it goes on, reloads, or looks at something. */
const harmless: ReadonlySet<string> = new Set([
  ...['0', 'HUP', '1', 'USR1', '10', 'USR2', '12', 'CHLD', '17', 'CONT', '18', 'STOP', '19', 'TSTP', '20'],
  ...['URG', '23', 'WINCH', '28'],
]);

/** Whether a signal of `runc kill` asks the job to end; without one it is SIGTERM (runc's kill.go). */
function endsJob(signal = 'SIGTERM'): boolean {
  return !harmless.has(signal.toUpperCase().replace(/^SIG/, ''));
}

function callOf(command: RuncCommand, cwd: string): RuncCall {
  const file = globalValue(command, 'log');
  return {
    argv: command.argv,
    globals: wordsOf(command.globals, (name) => name !== 'log' && name !== 'log-format'),
    switches: [...new Set([...command.globals, ...command.flags].map(({ name }) => name))].filter(
      (name) => flagSet(command, name) || globalSet(command, name),
    ),
    ...(file
      ? { log: { file: resolve(cwd, file), format: globalValue(command, 'log-format') ?? 'text' } }
      : {}),
    restoreFlags: wordsOf(command.flags, (name) => carriedOver.has(name)),
  };
}

/** Flags of `create` and `run` that `restore` has too, with the same meaning. */
const carriedOver: ReadonlySet<string> = new Set(['pid-file', 'console-socket', 'no-pivot']);

function checkpointRequestOf(command: RuncCommand, cwd: string) {
  const workPath = flagValue(command, 'work-path');
  const own = new Set(['image-path', 'work-path', 'leave-running']);
  return {
    leaveRunning: flagSet(command, 'leave-running'),
    // Without the flag runc dumps into "checkpoint" in its working directory (checkpoint.go, prepareImagePaths).
    imagePath: resolve(cwd, flagValue(command, 'image-path') || join(cwd, 'checkpoint')),
    ...(workPath ? { workPath: resolve(cwd, workPath) } : {}),
    flags: wordsOf(command.flags, (name) => !own.has(name)),
  };
}

/** The shim never repeats `--file-locks` on a restore; an image of Tardis's may hold locks and needs it. */
function withFileLocks(command: RuncCommand, call: RuncCall): RuncCall {
  const argv = command.pieces.flatMap(({ role, words }) =>
    role === 'command' ? [...words, '--file-locks'] : words,
  );
  return { ...call, argv };
}

function wordsOf(flags: RuncCommand['flags'], wanted: (name: string) => boolean): string[] {
  return flags.flatMap(({ name, words }) => (wanted(name) ? words : []));
}
