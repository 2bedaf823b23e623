import type { AsyncCommand } from 'fast-check';
import { expect } from 'vitest';
import type { ContainerContext, ContainerEvent } from '../../src/machines/container-context.ts';
import { pathOf } from '../../src/machines/paths.ts';
import type { Shim } from '../../src/machines/vocabulary.ts';
import { agrees, faultsOf, isInterrupted } from './machine-invariants.ts';
import { type End, type Fate, type Host, stateOf, WrapperProcess } from './machine-process.ts';
import { callOf, engineCallOf, requestOf, shimAt } from './machine-samples.ts';
import { isAlive, type World } from './machine-world.ts';

/** A container's life as its caller sees it; that is all the model knows. */
export interface Model {
  /** `unsure` where a process has died or failed and nobody has looked since. */
  life:
    | 'none'
    | 'created'
    | 'running'
    | 'paused'
    | 'restored'
    | 'checkpointed'
    | 'stopped'
    | 'failed'
    | 'unsure';
  /** Whether the job's processes are there. */
  alive: boolean;
  image: boolean;
  pausedByCaller: boolean;
  /** Whether the latest command but for signals was an engine's `pause`: its checkpoint is to follow. */
  pausedByEngine: boolean;
  /** Whether an engine takes the container for paused that runs. */
  awaitsResume: boolean;
}

export const newModel = (): Model => ({
  life: 'none',
  alive: false,
  image: false,
  pausedByCaller: false,
  pausedByEngine: false,
  awaitsResume: false,
});

type Change = Partial<Model> & { readonly refused?: true };

const refused: Change = { refused: true };

/** One runc command, carried out by a process that may fail or die on the way. */
export abstract class Given implements AsyncCommand<Model, Host> {
  readonly fates: readonly Fate[];

  constructor(fates: readonly Fate[]) {
    this.fates = fates;
  }

  protected abstract event(): ContainerEvent;

  /** What becomes of a container that is well understood, where nothing goes wrong. */
  protected abstract expected(model: Readonly<Model>): Change;

  /** What is done by runc itself, with or without Tardis's leave. */
  protected runcAlone(_: World): void {}

  check({ life }: Readonly<Model>): boolean {
    return life !== 'none';
  }

  async run(model: Model, host: Host): Promise<void> {
    host.texts.splice(0, host.texts.length - 1);
    const before: Host = { world: structuredClone(host.world), texts: [...host.texts] };
    const process = new WrapperProcess(host, this.fates);
    const end = await process.carryOut(this.event());
    host.reader?.read(host.texts);
    if (end.kind === 'refused') this.#expectUntouched(before, host);
    this.#expectPauseToStay(model, before, host, end);
    if (end.kind !== 'died') this.runcAlone(host.world);

    if (process.met > 0) model.life = 'unsure';
    if (model.life !== 'unsure') this.#expectChange(model, host, end);
    this.#look(model, host, end);
    expect(faultsOf(host.world, stateOf(host), model.pausedByCaller)).toEqual([]);
  }

  #expectChange(model: Model, host: Host, end: End): void {
    const { refused, ...change } = this.expected(model);
    expect(end.kind).toBe(refused ? 'refused' : 'answered');
    Object.assign(model, change);
    expect({ life: lifeIn(host), alive: isAlive(host.world) }).toEqual({
      life: model.life,
      alive: model.alive,
    });
  }

  #expectUntouched(before: Host, host: Host): void {
    const state = stateOf(before);
    // A death before it is another story, and its recovery touches everything.
    if (!state || isInterrupted(state)) return;
    expect(host.world).toEqual(before.world);
    // Whether a checkpoint is refused is decided by a look at the container, which is written down.
    if (this.event().type !== 'CHECKPOINT') expect(stateOf(host)).toEqual(state);
  }

  /** A pause is only over with the engine's checkpoint that it was for. */
  #expectPauseToStay(model: Model, before: Host, host: Host, end: End): void {
    const state = stateOf(before);
    const wasPaused = before.world.container === 'frozen' && !before.world.held;
    if (this.event().type !== 'CHECKPOINT' || end.kind === 'died' || !wasPaused) return;
    if (!state || isInterrupted(state) || !isAlive(host.world)) return;
    const isOver = this.isFollowing(model);
    expect(host.world.container).toBe(isOver ? 'running' : 'frozen');
  }

  /** Whether this is the checkpoint that an engine's pause was for. */
  protected isFollowing({ pausedByEngine }: Model): boolean {
    const event = this.event();
    const shim = event.type === 'CHECKPOINT' ? event.call.shim : undefined;
    return pausedByEngine && shim?.pid === engine.pid && shim.at - engine.at <= 5_000;
  }

  /** Tells the model what it cannot know: how a process that died or failed has left everything. */
  #look(model: Model, host: Host, end: End): void {
    const { world } = host;
    const frozen = world.container === 'frozen' && !world.held;
    const event = this.event();
    const asked = event.type === 'PAUSE' && end.kind !== 'refused';
    const isOver = this.isFollowing(model) && end.kind !== 'refused';
    model.pausedByCaller = frozen && !isOver && (model.pausedByCaller || asked);
    if (end.kind !== 'refused' && event.type !== 'KILL') {
      const isEngines = asked && end.kind === 'answered' && event.call.shim !== undefined;
      model.pausedByEngine = frozen && isEngines;
    }
    if (model.life === 'unsure') model.awaitsResume = awaitsResumeIn(host);
    model.image = world.current !== undefined;
    if (model.life !== 'unsure') return;
    model.alive = isAlive(world);
    const state = stateOf(host);
    const path = state && !isInterrupted(state) ? pathOf(state.snapshot.value) : 'none';
    // What a failed container is, if it is anything, only runc knows.
    const known = agrees(path, world) && !(path === 'alive.failed' && model.alive);
    if (known) model.life = lifeIn(host);
  }

  toString(): string {
    const { type } = this.event();
    const fates = this.fates.map(({ at, how }) => `${how} effect ${at}`).join(', ');
    return `${type}${this.#options()}${fates && ` (${fates})`}`;
  }

  #options(): string {
    const event = this.event();
    if (event.type === 'CHECKPOINT') return event.request.leaveRunning ? ' --leave-running' : '';
    return 'call' in event
      ? event.call.argv.slice(1).join(' ') && ` ${event.call.argv.slice(1).join(' ')}`
      : '';
  }
}

function lifeIn(host: Host): Model['life'] {
  const path = pathOf(stateOf(host)?.snapshot.value ?? 'deleted');
  return path === 'deleted' ? 'none' : (path.split('.').at(-1) as Model['life']);
}

const awaitsResumeIn = (host: Host): boolean => contextOf(host).awaitsResume ?? false;

const contextOf = (host: Host): Partial<ContainerContext> =>
  (stateOf(host)?.snapshot.context ?? {}) as Partial<ContainerContext>;

/** The shim that pauses for a checkpoint. */
const engine = shimAt(0);

/** The commands that begin a life, each in a bundle of its own. */
abstract class Beginning extends Given {
  override check({ life }: Readonly<Model>): boolean {
    return life === 'none';
  }

  override run(model: Model, host: Host): Promise<void> {
    this.renew(host);
    return super.run(model, host);
  }

  protected renew({ world, texts }: Host): void {
    Object.assign(world, { rootfs: 'clean', rollback: undefined });
    texts.length = 0;
  }
}

export class Create extends Beginning {
  protected event = (): ContainerEvent => ({ type: 'CREATE', call: callOf('create') });
  protected expected = ({ image }: Model): Change => ({ life: image ? 'restored' : 'created', alive: true });
}

/** In the bundle that an earlier command of its kind died over, or failed in. */
export class CreateAgain extends Create {
  override check({ life }: Readonly<Model>): boolean {
    return life === 'unsure' || life === 'failed';
  }

  protected override renew(): void {}
}

export class RunDetached extends Beginning {
  protected event = (): ContainerEvent => ({ type: 'RUN', call: callOf('run', '--detach'), detach: true });
  protected expected = (): Change => ({ life: 'running', alive: true });
}

/** containerd's own restore. */
export class Restore extends Beginning {
  protected event = (): ContainerEvent => ({ type: 'RESTORE', call: callOf('restore'), detach: true });
  protected expected = (): Change => ({ life: 'running', alive: true });
}

export class Start extends Given {
  protected event = (): ContainerEvent => ({ type: 'START', call: callOf('start') });
  protected expected({ life, alive }: Model): Change {
    if (life === 'restored') return { life: 'running' };
    if (life === 'created') return alive ? { life: 'running' } : {};
    return refused;
  }
}

export class Pause extends Given {
  protected event = (): ContainerEvent => ({ type: 'PAUSE', call: callOf('pause') });
  protected expected({ life, alive }: Model): Change {
    if (life !== 'running') return refused;
    return alive ? { life: 'paused', awaitsResume: false } : { awaitsResume: false };
  }
}

/** containerd's client pauses a container before it asks for its checkpoint. */
export class PauseByEngine extends Pause {
  protected override event = (): ContainerEvent => ({ type: 'PAUSE', call: engineCallOf(engine, 'pause') });
  protected override expected(model: Model): Change {
    // It was never answered.
    return model.life === 'paused' && model.pausedByEngine ? {} : super.expected(model);
  }
}

export class Resume extends Given {
  protected event = (): ContainerEvent => ({ type: 'RESUME', call: callOf('resume') });
  protected expected({ life, alive, awaitsResume }: Model): Change {
    if (life === 'running' && awaitsResume) return { awaitsResume: false };
    if (life !== 'paused') return refused;
    return alive ? { life: 'running' } : {};
  }
}

export class Kill extends Given {
  protected event = (): ContainerEvent => ({ type: 'KILL', call: callOf('kill') });
  protected expected = (): Change => ({ alive: false });
  protected override runcAlone(world: World): void {
    if (isAlive(world)) Object.assign(world, { container: 'dead', held: false });
  }
}

export class Delete extends Given {
  protected event = (): ContainerEvent => ({ type: 'DELETE', call: callOf('delete') });
  protected expected({ life, alive }: Model): Change {
    return alive && life !== 'created' ? {} : { life: 'none', alive: false };
  }
}

export class DeleteForced extends Given {
  protected event = (): ContainerEvent => ({ type: 'DELETE', call: callOf('delete', '--force') });
  protected expected = (): Change => ({ life: 'none', alive: false });
}

abstract class Checkpoint extends Given {
  protected abstract readonly leaveRunning: boolean;
  protected event(): ContainerEvent {
    return { type: 'CHECKPOINT', call: callOf('checkpoint'), request: requestOf(this.leaveRunning) };
  }
  protected expected({ life, alive }: Model): Change {
    const known = life === 'created' || life === 'running' || life === 'paused' || life === 'restored';
    if (known && !alive) return { life: 'stopped', refused: true };
    if (life !== 'running' && life !== 'paused') return refused;
    const image = { image: true, awaitsResume: false };
    return this.leaveRunning ? image : { ...image, life: 'checkpointed', alive: false };
  }
}

export class CheckpointWithExit extends Checkpoint {
  protected readonly leaveRunning = false;
}

export class CheckpointLeavingRunning extends Checkpoint {
  protected readonly leaveRunning = true;
}

/** Of the engine that has paused, of another one, or long after. */
abstract class CheckpointByEngine extends Checkpoint {
  protected readonly leaveRunning: boolean = true;
  protected readonly shim: Shim = shimAt(500);
  protected override event(): ContainerEvent {
    const call = engineCallOf(this.shim, 'checkpoint');
    return { type: 'CHECKPOINT', call, request: requestOf(this.leaveRunning) };
  }
  protected override expected(model: Model): Change {
    const change = super.expected(model);
    const goesOn = !change.refused && this.leaveRunning && model.life === 'paused' && this.isFollowing(model);
    return goesOn ? { ...change, life: 'running', awaitsResume: true } : change;
  }
}

export class EngineCheckpointWithExit extends CheckpointByEngine {
  protected override readonly leaveRunning = false;
}

export class EngineCheckpointLeavingRunning extends CheckpointByEngine {}

export class OtherEngineCheckpoint extends CheckpointByEngine {
  protected override readonly shim = shimAt(500, 78);
}

export class LateEngineCheckpoint extends CheckpointByEngine {
  protected override readonly shim = shimAt(5_001);
}

/** The job ends by itself, and nobody tells Tardis. */
export class JobEnds implements AsyncCommand<Model, Host> {
  check = ({ life, alive }: Readonly<Model>): boolean => alive && life === 'running';
  async run(model: Model, { world }: Host): Promise<void> {
    world.container = 'dead';
    model.alive = false;
  }
  toString = (): string => 'the job ends';
}
