import type { AnyMachineSnapshot, AnyStateMachine, AnyStateNode, EventObject } from 'xstate';
import { transition } from 'xstate';
import { getSimplePaths } from 'xstate/graph';
import { pathOf } from '../../src/machines/paths.ts';

/** What an invoked service may answer, by its name; one that is not named here answers nothing. */
export type Outputs = Readonly<Record<string, readonly unknown[]>>;

export interface Ending extends EventObject {
  readonly service: string;
  readonly how: 'done' | 'fails';
}

/** The service that a state runs, or undefined where it rests. */
export function serviceIn(snapshot: AnyMachineSnapshot): string | undefined {
  return invocationIn(snapshot)?.src;
}

/** Every event with which the service under way may end; its failure is named after it. */
export function endingsOf(snapshot: AnyMachineSnapshot, outputs: Outputs = {}): Ending[] {
  const { id, src } = invocationIn(snapshot) ?? {};
  if (!id || !src) return [];
  const error = new Error(`${src} failed`);
  return [
    ...(outputs[src] ?? [undefined]).map((output) => ended(src, id, { output })),
    ended(src, id, { error }),
  ];
}

const ended = (
  service: string,
  actorId: string,
  result: { output: unknown } | { error: unknown },
): Ending => {
  const how = 'error' in result ? 'fails' : 'done';
  const type = `xstate.${how === 'fails' ? 'error' : 'done'}.actor.${actorId}`;
  return { type, service, how, ...{ actorId }, ...result };
};

function invocationIn(snapshot: AnyMachineSnapshot): { id: string; src: string } | undefined {
  const [found, another] = (snapshot._nodes as AnyStateNode[]).flatMap(({ invoke }) => invoke);
  if (another) throw new Error(`${pathOf(snapshot.value)} runs two services`);
  if (!found) return undefined;
  if (typeof found.src !== 'string')
    throw new Error(`${pathOf(snapshot.value)} runs a service without a name`);
  return { id: found.id, src: found.src };
}

/** The states that nothing is below, by their paths. */
export function leavesOf(machine: AnyStateMachine): AnyStateNode[] {
  const below = (node: AnyStateNode): AnyStateNode[] => {
    const children = Object.values(node.states) as AnyStateNode[];
    if (children.length > 0) return children.flatMap(below);
    return node.type === 'history' ? [] : [node];
  };
  return below(machine.root);
}

export const pathOfNode = (node: AnyStateNode): string => node.path.join('.');

/** Where a state comes to rest if its services end in any way, one after another, without a command. */
export function restsOf(
  machine: AnyStateMachine,
  snapshot: AnyMachineSnapshot,
  outputs: Outputs,
): AnyMachineSnapshot[] {
  const from = (at: AnyMachineSnapshot, steps: number): AnyMachineSnapshot[] => {
    if (steps > 8) throw new Error(`${pathOf(snapshot.value)} does not come to rest`);
    const endings = endingsOf(at, outputs);
    if (endings.length === 0) return [at];
    return endings.flatMap((ending) => from(next(machine, at, ending), steps + 1));
  };
  return from(snapshot, 0);
}

/** The pure transition, for machines and events of any type. */
export function next(
  machine: AnyStateMachine,
  snapshot: AnyMachineSnapshot,
  event: EventObject,
): AnyMachineSnapshot {
  return transition(machine, snapshot as never, event as never)[0] as AnyMachineSnapshot;
}

/** What ran, and how it ended: `freeze`, or `freeze fails`. */
export interface Walk {
  readonly ran: readonly string[];
  readonly last: AnyMachineSnapshot;
}

/** Every way through a machine that takes no commands. */
export function walksOf(machine: AnyStateMachine, input: object, outputs: Outputs = {}): Walk[] {
  return getSimplePaths(machine, {
    input: input as never,
    events: ((snapshot: AnyMachineSnapshot) => endingsOf(snapshot, outputs)) as never,
    // Two ways to the same state are two walks: what ran before is part of where one is.
    serializeState: (snapshot) => JSON.stringify([snapshot.value, snapshot.context]) as never,
    toState: ({ status }) => status !== 'active',
  }).map(({ state, steps }) => ({
    ran: steps.flatMap(({ event }) => {
      const { service, how } = event as unknown as Partial<Ending>;
      return service ? [how === 'fails' ? `${service} fails` : service] : [];
    }),
    last: state as AnyMachineSnapshot,
  }));
}
