import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createActor } from 'xstate';
import { readState, type StateRecord, stateFileOf } from '../../src/actions/state-file.ts';
import { containerMachine } from '../../src/machines/container.ts';
import { interruptionIn, pathOf } from '../../src/machines/paths.ts';
import { next } from './machine-paths.ts';
import { container } from './machine-samples.ts';
import { observe, type World } from './machine-world.ts';

const agreement: Readonly<Record<string, (world: World) => boolean>> = {
  new: ({ container }) => container === 'none',
  'alive.created': ({ container }) => container === 'created',
  'alive.running': ({ container }) => container === 'running',
  'alive.paused': ({ container }) => container === 'frozen',
  // A job that is killed while it is held is reported by its `start`, as one that ended at once.
  'alive.restored': ({ container, held }) => held || container === 'dead' || container === 'none',
  'alive.stopped': ({ container }) => container === 'dead' || container === 'none',
  'alive.checkpointed': ({ container }) => container === 'none',
  // Says only that Tardis does not know any more.
  'alive.failed': () => true,
  deleted: ({ container }) => container === 'none',
};

/** Whether a state says what is true of the world. */
export const agrees = (path: string, world: World): boolean => agreement[path]?.(world) ?? false;

export const isInterrupted = ({ snapshot }: StateRecord): boolean => interruptionIn(snapshot) !== undefined;

/** Where a state file would rest once Tardis has looked at the container. */
export function onceObserved({ snapshot }: StateRecord, world: World): string {
  const loaded = createActor(containerMachine, {
    snapshot: snapshot as never,
    input: { container },
  }).getSnapshot();
  return pathOf(next(containerMachine, loaded, { type: 'OBSERVED', status: observe(world) } as never).value);
}

/** What is wrong with a world and a state file after any command, whatever befell its process. */
export function faultsOf(world: World, state: StateRecord | undefined, pausedByCaller: boolean): string[] {
  const faults = [...world.wrongs];
  if (!state || isInterrupted(state)) return faults;
  if (world.copy) faults.push('a copy of it was left');
  if (world.container === 'frozen' && !world.held && !pausedByCaller) faults.push('it was left frozen');
  const path = onceObserved(state, world);
  if (!agrees(path, world)) faults.push(`it is ${world.container}, but its state is ${path}`);
  return faults;
}

/** Reads texts as the next wrapper reads its state file; each only once. */
export class StateReader implements Disposable {
  readonly #bundle = mkdtempSync(join(tmpdir(), 'tardis-state-'));
  readonly #seen = new Set<string>();

  /** @throws Problem where a wrapper could not go on from one of these texts. */
  read(texts: readonly string[]): void {
    for (const text of texts) {
      if (this.#seen.has(text)) continue;
      this.#seen.add(text);
      writeFileSync(stateFileOf(this.#bundle), text);
      readState(stateFileOf(this.#bundle));
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.#bundle, { recursive: true });
  }
}
