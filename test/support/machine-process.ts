import { type AnyActorRef, createActor, fromPromise, type Snapshot, waitFor } from 'xstate';
import { machineVersion, type StateRecord, stateSchemaVersion } from '../../src/actions/state-file.ts';
import { checkpointMachine } from '../../src/machines/checkpoint.ts';
import { containerMachine } from '../../src/machines/container.ts';
import type {
  ContainerEvent,
  ContainerInput,
  Interruption,
  Recovered,
} from '../../src/machines/container-context.ts';
import { interruptionIn } from '../../src/machines/paths.ts';
import { restoreMachine } from '../../src/machines/restore.ts';
import type { ImagePlace } from '../../src/machines/vocabulary.ts';
import type { StateReader } from './machine-invariants.ts';
import { container } from './machine-samples.ts';
import {
  answerOf,
  apply,
  type Effect,
  observe,
  putPredecessorRight,
  recover,
  services,
  type World,
} from './machine-world.ts';

/** What befalls a process at one of its effects, counted from 0. */
export interface Fate {
  readonly at: number;
  readonly how: 'dies before' | 'dies after' | 'fails before' | 'fails after';
}

/** What outlives a process: the world, and every text that the state file has had. */
export interface Host {
  readonly world: World;
  readonly texts: string[];
  readonly reader?: StateReader;
}

export interface End {
  readonly kind: 'answered' | 'refused' | 'died';
}

/** The state file, as the next process reads it. */
export const stateOf = ({ texts }: Host): StateRecord | undefined => {
  const text = texts.at(-1);
  return text === undefined ? undefined : (JSON.parse(text) as StateRecord);
};

const beginnings = new Set(['CREATE', 'RUN', 'RESTORE']);

/** src/cli/lifecycle.ts in a process that may die or fail at any of its effects. */
export class WrapperProcess {
  readonly #host: Host;
  readonly #fates: readonly Fate[];
  #effects = 0;
  /** How many of its fates the process has met. */
  met = 0;
  #dead = false;
  #actor: AnyActorRef | undefined;
  readonly #death = Promise.withResolvers<End>();

  constructor(host: Host, fates: readonly Fate[]) {
    this.#host = host;
    this.#fates = fates;
  }

  carryOut(event: ContainerEvent): Promise<End> {
    return Promise.race([this.#live(event), this.#death.promise]);
  }

  async #live(event: ContainerEvent): Promise<End> {
    const found = stateOf(this.#host);
    const known = beginnings.has(event.type) ? undefined : found;
    // A root file system that a restore died over is put right before the bundle is used again.
    if (!known) for (const effect of putPredecessorRight(this.#host.world)) await this.#do(effect);
    const interruption = known && interruptionIn(known.snapshot);
    const actor = createActor(this.#machine(), {
      input: {
        container,
        ...(interruption ? { interruption, image: known?.snapshot.context.image as ImagePlace } : {}),
      },
      ...(known && !interruption ? { snapshot: known.snapshot as unknown as Snapshot<unknown> } : {}),
    });
    this.#actor = actor;
    actor.subscribe({ next: () => this.#write(), error: () => {} });
    actor.start();
    const rests = () => waitFor(actor, (snapshot) => snapshot.hasTag('resting'));
    await rests();
    if (event.type === 'CHECKPOINT') {
      actor.send({ type: 'OBSERVED', status: observe(this.#host.world) });
    }
    if (!actor.getSnapshot().can(event)) return { kind: 'refused' };
    actor.send(event);
    await rests();
    this.#write();
    actor.stop();
    return { kind: 'answered' };
  }

  #write(): void {
    if (this.#dead || !this.#actor) return;
    const { texts } = this.#host;
    const snapshot = this.#actor.getPersistedSnapshot();
    const envelope = {
      schemaVersion: stateSchemaVersion,
      machineVersion,
      ...container,
      snapshot,
      history: [],
    };
    texts.push(JSON.stringify(envelope));
  }

  #machine(): typeof containerMachine {
    const provided = (machine: typeof checkpointMachine | typeof restoreMachine) =>
      Object.fromEntries(
        Object.keys(machine.implementations.actors).map((name) => [name, this.#service(name)]),
      );
    const { checkpoint: _, restore: __, ...own } = provided(containerMachine as never);
    return containerMachine.provide({
      actors: {
        ...(own as object),
        recover: this.#recover(),
        checkpoint: checkpointMachine.provide({ actors: provided(checkpointMachine) as never }),
        restore: restoreMachine.provide({ actors: provided(restoreMachine) as never }),
      },
    });
  }

  #service(name: string) {
    return fromPromise<never, unknown>(async ({ input }) => {
      this.#write();
      const { world } = this.#host;
      const effects = services[name]?.(input, world);
      if (!effects) throw new Error(`nobody has said what ${name} does`);
      const answer = answerOf(name, world);
      for (const effect of effects) await this.#do(effect);
      return answer as never;
    });
  }

  #recover() {
    return fromPromise(async ({ input }: { input: ContainerInput }) => {
      this.#write();
      if (!input.interruption) throw new Error('a recovery was begun without an interruption');
      return { ...(await this.#putRight(input.interruption)), note: '' };
    });
  }

  #putRight(interruption: Interruption): Promise<Omit<Recovered, 'note'>> {
    return recover(interruption, this.#host.world, (effect) => this.#do(effect));
  }

  async #do(effect: Effect): Promise<void> {
    const { sure, name } = effect;
    const at = this.#effects++;
    const fate = this.#fates.find((candidate) => candidate.at === at)?.how;
    const applies = fate !== undefined && !(sure && fate.startsWith('fails'));
    if (applies) this.met++;
    if (applies && fate === 'dies before') return this.#die();
    if (applies && fate === 'fails before') throw new Error(`cannot ${name}`);
    apply(effect, this.#host.world);
    if (applies && fate === 'dies after') return this.#die();
    if (applies && fate === 'fails after') throw new Error(`did not see that it could ${name}`);
  }

  #die(): Promise<never> {
    this.#dead = true;
    this.#death.resolve({ kind: 'died' });
    return new Promise(() => {});
  }
}
