import type { ContainerEvent, Interruption } from './container-context.ts';

interface PersistedSnapshot {
  readonly value: unknown;
  readonly children?: unknown;
}

interface PersistedChild {
  readonly snapshot?: { readonly status?: string; readonly value?: unknown; readonly context?: unknown };
}

/** The states that work: a state file that ends in one of them was written by a wrapper that died. */
const working: ReadonlySet<string> = new Set([
  'alive.creating.lookingForImage',
  'alive.creating.fromScratch',
  'alive.starting',
  'alive.pausing',
  'alive.resuming',
  'alive.checkpointing',
  'alive.restoring',
  'alive.releasing',
  'alive.rolledBack',
  'alive.adopting',
  'deleting',
  'recovering',
]);

/**
 * A state's path, such as `alive.running`; with a persisted snapshot, the step of a child machine too, such as
 * `alive.checkpointing/dumping`.
 */
export function pathOf(value: unknown, snapshot?: PersistedSnapshot): string {
  const path = flatten(value);
  const step = snapshot && childOf(snapshot)?.snapshot?.value;
  return step === undefined ? path : `${path}/${flatten(step)}`;
}

function flatten(value: unknown): string {
  if (typeof value === 'string') return value;
  const [entry] = Object.entries((value ?? {}) as Record<string, unknown>);
  return entry ? `${entry[0]}.${flatten(entry[1])}` : '';
}

/** The one child machine that a persisted snapshot holds; promises have no state value. */
function childOf({ children }: PersistedSnapshot): PersistedChild | undefined {
  return Object.values((children ?? {}) as Record<string, PersistedChild>).find(
    (child) => child.snapshot?.status === 'active' && child.snapshot.value !== undefined,
  );
}

/** What a persisted snapshot was in the middle of, or undefined where it rests. */
export function interruptionIn(
  snapshot: PersistedSnapshot & { readonly context?: unknown },
): Interruption | undefined {
  const state = flatten(snapshot.value);
  if (!working.has(state)) return undefined;
  // A recovery that was interrupted itself begins again where the first one did.
  const earlier = (snapshot.context as { interruption?: Interruption } | undefined)?.interruption;
  if (state === 'recovering' && earlier) return earlier;
  const child = childOf(snapshot)?.snapshot;
  return {
    state,
    ...(child?.value === undefined ? {} : { step: flatten(child.value), child: child.context }),
  };
}

/** Whether it was a `create` that was interrupted: its caller was never answered, and does not take the container for created. */
export const isCreate = (interruption: Interruption | undefined): boolean =>
  interruption !== undefined && /^alive\.(creating\.|restoring$|rolledBack$)/.test(interruption.state);

const verbs: Record<ContainerEvent['type'], string> = {
  CREATE: 'create',
  RESTORE: 'restore',
  RUN: 'run',
  START: 'start',
  PAUSE: 'pause',
  RESUME: 'resume',
  KILL: 'kill',
  DELETE: 'delete',
  CHECKPOINT: 'checkpoint',
  OBSERVED: 'observe',
};

/** Why an event is refused: `cannot checkpoint a container that is created`. */
export function refusalOf(event: Pick<ContainerEvent, 'type'>, value: unknown): string {
  const state = flatten(value).split('.').at(-1);
  return `cannot ${verbs[event.type]} a container that is ${state === 'new' ? 'not created' : state}`;
}
