import type { AnyStateMachine, AnyStateNode } from 'xstate';

/** An event that a machine accepts, and the paths of the states it may lead to: none where it moves nothing. */
export interface NextEvent {
  readonly event: string;
  readonly to: readonly string[];
}

/**
 * What a machine accepts in a state, read from its definition: nothing is started, and no guard is asked. The
 * answers of invoked services are left out: nobody sends those.
 *
 * @param path the state's path, such as `alive.running`.
 * @returns the events of the state itself and of those around it, innermost first; undefined where the machine
 * has no such state, or the path ends before a leaf.
 */
export function nextEvents(machine: AnyStateMachine, path: string): NextEvent[] | undefined {
  let node: AnyStateNode | undefined = machine.root;
  for (const key of path.split('.'))
    node = node && Object.hasOwn(node.states, key) ? node.states[key] : undefined;
  if (node?.type !== 'atomic' && node?.type !== 'final') return undefined;

  const found = new Map<string, NextEvent>();
  for (let level: AnyStateNode | undefined = node; level; level = level.parent) {
    for (const [event, candidates] of level.transitions) {
      if (event.startsWith('xstate.') || found.has(event)) continue;
      const targets = candidates.flatMap(({ target }): readonly AnyStateNode[] => target ?? []);
      found.set(event, { event, to: targets.map((target) => target.path.join('.')) });
    }
  }
  return [...found.values()];
}
