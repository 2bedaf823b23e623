import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { isEnabled, readContainerConfig, settingsOf } from '../actions/container-config.ts';
import { bundleFromIndex, enterIndex } from '../actions/container-index.ts';
import { noteKill } from '../actions/ending.ts';
import { isFrozen } from '../actions/freezer.ts';
import type { Host } from '../actions/host.ts';
import type { HostConfig } from '../actions/host-config.ts';
import { appendToRuncLog } from '../actions/log.ts';
import { Problem, reasonOf } from '../actions/problem.ts';
import { programOf } from '../actions/processes.ts';
import { isInside } from '../actions/real-path.ts';
import { environmentToAdopt } from '../actions/restore-given.ts';
import { commandOf } from '../actions/runc.ts';
import { isInitAlive, processStartTime, readRuncRecord } from '../actions/runc-state.ts';
import { answers } from '../actions/share.ts';
import { readState, stateFileOf } from '../actions/state-file.ts';
import { sweepIfDue } from '../actions/sweep.ts';
import type { ContainerEvent } from '../machines/container-context.ts';
import type { Answer, ContainerIdentity, Shim } from '../machines/vocabulary.ts';
import { becomeRunc, type Launch, openHost, readLaunch, readSettings, useAllCores } from './launch.ts';
import { carryOut } from './lifecycle.ts';
import { defaultRoot, idForm, type Plan, planFor, whyNoPlan } from './plan.ts';
import { globalValue, parseRuncCommand, type RuncCommand } from './runc-command.ts';

/**
 * One runc command, from its argv to its exit status. Whatever is wrong with Tardis before it has touched
 * anything, this process becomes the real runc.
 */
export async function main(argv: readonly string[]): Promise<void> {
  const launch = readLaunch(process.env);
  const command = parseRuncCommand(argv);
  const settings = readSettings(launch);
  const plan = planFor(command, process.cwd(), readShim(process.ppid));
  if (!plan) {
    const reason = argv.includes('checkpoint') && whyNoPlan(command);
    if (reason && isIndexed(settings.config, command)) refuseCheckpoint(reason);
    becomeRunc(launch, argv);
  }

  const found = await attempt(() => identify(launch, settings.config, plan));
  if (found.ok && !found.value) becomeRunc(launch, argv);
  useAllCores();
  const host = openHost(launch, settings, { id: plan.id, command: command.name, pid: process.pid });
  const passOn = (reason: string): never => {
    if (plan.event.type === 'CHECKPOINT') {
      host.log.warn({ reason }, 'the checkpoint was refused');
      return refuseCheckpoint(reason);
    }
    host.log.warn(`${reason}; the real runc does it alone`);
    appendToRuncLog(plan.call.log, 'warning', `tardis: ${reason}`);
    return becomeRunc(launch, argv);
  };
  if (!found.ok) return passOn(found.reason);
  if (settings.broken !== undefined || !found.value) return passOn(settings.broken ?? '');

  const takeBack = plan.endsJobBy === undefined ? undefined : noteKill(found.value, plan.endsJobBy);
  let answer: Answer;
  try {
    answer = await carryOut(
      host,
      found.value,
      plan.event,
      plan.handsOver ? 0 : host.config.lockTimeoutSeconds,
    );
  } catch (error) {
    if (takeBack) killByRunc(launch, plan, takeBack);
    if (plan.handsOver) becomeRunc(launch, argvOf(plan));
    // A shim asks only where it takes the task for paused: an earlier resume of its was never answered.
    if (isRefusal(error) && plan.event.type === 'RESUME' && plan.event.call.shim && runs(found.value)) {
      host.log.info(`${error.message}: so its shim may take it for running`);
      process.exit(0);
    }
    // Such as the `resume` that the shim sends after every checkpoint: runc has the word, and the words.
    if (isRefusal(error) && plan.event.type !== 'CHECKPOINT') {
      host.log.info(`${error.message}; the real runc answers`);
      becomeRunc(launch, argv);
    }
    if (plan.event.type !== 'CHECKPOINT') passOn(reasonOf(error));
    // A bare dump would end the job without an image that outlives the host: it runs on instead.
    answer = { status: 1, message: reasonOf(error) };
    host.log.warn({ reason: answer.message }, 'the checkpoint was refused');
  }
  if (takeBack) killByRunc(launch, plan, takeBack);
  // Nobody waits for the container's lock by now.
  const hasCommitted = plan.event.type === 'CHECKPOINT' && answer.status === 0;
  if (hasCommitted || plan.event.type === 'DELETE') await sweepIfDue(host, found.value.imageRoot);
  if (plan.handsOver)
    becomeRunc({ ...launch, env: await environmentFor(host, found.value, plan) }, argvOf(plan));
  speak(plan, answer);
  process.exit(answer.status);
}

/** Has runc send a signal; the note of it is taken back if runc cannot: what ends the job then is something else. */
function killByRunc(launch: Launch, plan: Plan, takeBack: () => void): never {
  const [file, args] = commandOf(launch, argvOf(plan));
  const { status } = spawnSync(file, args, { stdio: 'inherit', env: launch.env });
  if (status !== 0) takeBack();
  process.exit(status === null || status >= 128 ? 1 : status);
}

/**
 * Ends this call without a checkpoint. runc's own would end the job, and no image would outlive the host.
 */
function refuseCheckpoint(reason: string): never {
  process.stderr.write(`Tardis cannot make this checkpoint: ${reason}. The container runs on\n`);
  process.exit(1);
}

/** Whether a word of a command line that is not understood names a container of Tardis's. */
function isIndexed({ runDir }: HostConfig, command: RuncCommand): boolean {
  const root = resolve(globalValue(command, 'root') ?? defaultRoot);
  return command.argv.some((word) => idForm.test(word) && bundleFromIndex(runDir, root, word) !== undefined);
}

/** The caller, where it is one of containerd's shims (`containerd-shim-runc-v2`, cut to 15 characters). */
function readShim(pid: number): Shim | undefined {
  if (!programOf(pid).startsWith('containerd-shim')) return undefined;
  return { pid, startTime: processStartTime(pid) ?? 0, at: Date.now() };
}

/** Whether a container's init is there, and nothing is frozen. */
function runs(container: ContainerIdentity): boolean {
  const record = readRuncRecord(container);
  return record?.freezer !== undefined && isInitAlive(record) && !isFrozen(record.freezer);
}

const isRefusal = (error: unknown): error is Problem => error instanceof Problem && error.code === 'refused';

type Attempt<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly reason: string };

async function attempt<Value>(action: () => Value | Promise<Value>): Promise<Attempt<Value>> {
  try {
    return { ok: true, value: await action() };
  } catch (error) {
    return { ok: false, reason: reasonOf(error) };
  }
}

/**
 * Which container the command is about; undefined where it is none of Tardis's.
 *
 * @throws Problem for settings that are refused, or files that cannot be read.
 */
async function identify(
  { env: callersEnv }: Launch,
  config: HostConfig,
  { id, root, bundle, event }: Plan,
): Promise<ContainerIdentity | undefined> {
  if (bundle === undefined) {
    const indexed = bundleFromIndex(config.runDir, root, id) ?? lostBundle(config, event, { root, id });
    const known = indexed && readState(stateFileOf(indexed));
    if (!known) return undefined;
    if (known.id === id && known.root === root) return known;
    const state = stateFileOf(known.bundle);
    throw new Problem(
      'state-foreign',
      `${state} is of container ${known.id} in ${known.root}, expected ${id} in ${root}`,
    );
  }
  // runc refuses an id that is taken; the container that has it must not lose its state over that.
  if (existsSync(join(root, id))) return undefined;
  const { env } = readContainerConfig(bundle);
  if (!isEnabled(env)) return undefined;
  // A path of the container's own is looked at, and a file server that is gone would keep this process asleep.
  const hostPath = env.get('TARDIS_CHECKPOINT_HOST_PATH');
  const place = resolve('/', hostPath ?? '');
  const isAllowed = config.allowedRoots.some((root) => isInside(root, place));
  const isReachable = !isAllowed || (await answers({ config, env: callersEnv }, place));
  return { id, root, bundle, ...settingsOf(id, env, config, isReachable) };
}

/**
 * The bundle of an enabled container that is to be checkpointed and is not in the index: the run directory was cleared, or is
 * another one since, or could not be written to. It is entered there again.
 */
function lostBundle(
  { runDir }: HostConfig,
  event: ContainerEvent,
  container: Pick<ContainerIdentity, 'root' | 'id'>,
): string | undefined {
  if (event.type !== 'CHECKPOINT') return undefined;
  const bundle = readRuncRecord(container)?.bundle;
  if (bundle === undefined || !isEnabled(readContainerConfig(bundle).env)) return undefined;
  enterIndex(runDir, { ...container, bundle });
  return bundle;
}

/** A foreground `restore` is runc's to carry out, and CRIU's options are the same. */
async function environmentFor(
  host: Host,
  container: ContainerIdentity,
  { event }: Plan,
): Promise<NodeJS.ProcessEnv> {
  if (event.type !== 'RESTORE') return host.env;
  const adopting = await attempt(() => environmentToAdopt(host, { container, call: event.call }));
  return adopting.ok ? adopting.value : host.env;
}

/** What the real runc is given where it takes over: a `restore` is told of file locks. */
const argvOf = ({ event, call }: Plan): readonly string[] => ('call' in event ? event.call : call).argv;

/** The shim shows the first line of a checkpoint's output, and the last error line of the log for the others. */
function speak({ event, call }: Plan, { status, message }: Answer): void {
  if (status === 0 || message === undefined) return;
  const line = message.replaceAll('\n', ' ');
  appendToRuncLog(call.log, 'error', line);
  // In a `create` the standard streams are the container's: nothing of ours belongs there.
  if (event.type !== 'CREATE' && event.type !== 'RUN') process.stderr.write(`${line}\n`);
}
