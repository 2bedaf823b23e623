import { type AnyStateMachine, type AnyStateNode, type AnyTransitionDefinition, StateMachine } from 'xstate';

/**
 * Draws a machine as a Mermaid state diagram, in the plain subset of `stateDiagram-v2` that every renderer knows.
 *
 * A state's id is its path with `_` for `.`; its description says which service it runs. A transition bears its
 * event, or its service and how that ended, and its guard; `[else]` is what is left when no guard before it held.
 * A transition that moves nothing stands in the label of its state.
 */
export function diagramOf(machine: AnyStateMachine): string {
  const { root } = machine;
  return [
    'stateDiagram-v2',
    `  %% Drawn from the machine "${machine.id}" by npm run diagrams. Do not edit.`,
    ...statesIn(root, machine, '  '),
    ...linksOf(root)
      .filter((link) => !isInside(link))
      .map((link) => `  ${lineOf(link)}`),
    '',
  ].join('\n');
}

interface Link {
  readonly from: AnyStateNode;
  readonly to: AnyStateNode;
  readonly label: string;
}

const childrenOf = (node: AnyStateNode): AnyStateNode[] => Object.values(node.states);
const idOf = (node: AnyStateNode): string => node.path.join('_');
const lineOf = ({ from, to, label }: Link): string => `${idOf(from)} --> ${idOf(to)} : ${label}`;

/** The states directly in one state, with what they hold and the transitions among them. */
function statesIn(parent: AnyStateNode, machine: AnyStateMachine, indent: string): string[] {
  const children = childrenOf(parent);
  return [
    ...(parent.initial.target[0] ? [`[*] --> ${idOf(parent.initial.target[0])}`] : []),
    ...children.flatMap((node) => stateLines(node, machine)),
    ...children.flatMap(ownLinksOf).filter(isInside).map(lineOf),
    ...children.filter(({ type }) => type === 'final').map((node) => `${idOf(node)} --> [*]`),
  ].map((line) => indent + line);
}

function stateLines(node: AnyStateNode, machine: AnyStateMachine): string[] {
  const remarks = remarksOf(node, machine);
  if (childrenOf(node).length === 0) {
    return [`state "${node.key}" as ${idOf(node)}`, ...remarks.map((remark) => `${idOf(node)} : ${remark}`)];
  }
  const label = [node.key, ...remarks].join(', ');
  return [`state "${label}" as ${idOf(node)} {`, ...statesIn(node, machine, '  '), '}'];
}

/** What happens in a state without leaving it. */
function remarksOf(node: AnyStateNode, machine: AnyStateMachine): string[] {
  const idle = [...node.transitions].filter(([, candidates]) => candidates.some(({ target }) => !target));
  return [
    ...node.invoke.map(({ src }) => `runs ${serviceOf(src, machine)}`),
    ...(node.type === 'history' ? ['the state that it was in before'] : []),
    ...idle.map(([event]) => `stays on ${eventOf(node, event)}`),
  ];
}

function serviceOf(src: unknown, machine: AnyStateMachine): string {
  const service = machine.implementations.actors[src as string];
  return service instanceof StateMachine ? `the machine ${src}` : String(src);
}

const linksOf = (node: AnyStateNode): Link[] => [
  ...ownLinksOf(node),
  ...childrenOf(node).flatMap((child) => linksOf(child)),
];

function ownLinksOf(from: AnyStateNode): Link[] {
  const groups: [string, readonly AnyTransitionDefinition[]][] = [
    ...from.transitions,
    ['', from.always ?? []],
  ];
  return groups.flatMap(([event, candidates]) =>
    candidates.flatMap(({ target, guard }, index) =>
      (target ?? []).map((to: AnyStateNode) => ({
        from,
        to,
        label: [eventOf(from, event), guardOf(guard, index)].filter(Boolean).join(' ') || 'at once',
      })),
    ),
  );
}

/** Mermaid moves a state into the inner block that names it: a block may only name its own states. */
const isInside = ({ from, to }: Link): boolean => from.parent === to.parent;

/** An event as an operator reads it: its own name, or the service that ended. */
function eventOf(node: AnyStateNode, event: string): string {
  for (const { id, src } of node.invoke) {
    if (event === `xstate.done.actor.${id}`) return `${src} done`;
    if (event === `xstate.error.actor.${id}`) return `${src} failed`;
  }
  return event === `xstate.done.state.${node.id}` ? 'done' : event;
}

/** A guard's name; one that is written in its place has none, and is only said to be there. */
function guardOf(guard: unknown, index: number): string {
  if (guard === undefined) return index > 0 ? '[else]' : '';
  if (typeof guard === 'string') return `[${guard}]`;
  return `[${typeof guard === 'object' ? (guard as { type: string }).type : 'condition'}]`;
}
