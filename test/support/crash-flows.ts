import { type AnyMachineSnapshot, type AnyStateMachine, initialTransition } from 'xstate';
import { checkpointMachine } from '../../src/machines/checkpoint.ts';
import { containerMachine } from '../../src/machines/container.ts';
import { restoreMachine } from '../../src/machines/restore.ts';
import { endingsOf, next, serviceIn } from './machine-paths.ts';
import { callOf, container, type EventName, events, failure, image, requestOf } from './machine-samples.ts';

/** One command on one container, which shall meet a fault at each of its steps. */
export interface Flow {
  readonly name: string;
  /** The commands before it. */
  readonly story: readonly EventName[];
  readonly event: EventName;
  /** Whether there is an image that a `create` finds. */
  readonly hasImage?: boolean;
  /** A step that fails in any case; what comes before it is another flow's. */
  readonly failing?: string;
}

const alive = ['CREATE', 'START'] as const;

export const flows = [
  { name: 'checkpoint with exit', story: [...alive, 'PAUSE'], event: 'CHECKPOINT' },
  { name: 'checkpoint leaving it running', story: alive, event: 'CHECKPOINT leaving' },
  { name: 'checkpoint that fails', story: alive, event: 'CHECKPOINT', failing: 'dumpMemory' },
  { name: 'restore', story: [], event: 'CREATE', hasImage: true },
  { name: 'start of a restored job', story: ['CREATE'], event: 'START', hasImage: true },
  { name: 'restore that fails', story: [], event: 'CREATE', hasImage: true, failing: 'restoreMemory' },
  { name: 'restore of a given image', story: [], event: 'RESTORE' },
  { name: 'create', story: [], event: 'CREATE' },
  { name: 'start', story: ['CREATE'], event: 'START' },
  { name: 'pause', story: alive, event: 'PAUSE' },
  { name: 'resume', story: [...alive, 'PAUSE'], event: 'RESUME' },
  { name: 'delete', story: alive, event: 'DELETE' },
] as const satisfies Flow[];

export type FlowName = (typeof flows)[number]['name'];

/** The services that a flow goes through, in their order, as the machines have them. */
export function stepsOf(flow: Flow): string[] {
  let snapshot = initialTransition(containerMachine, { container } as never)[0] as AnyMachineSnapshot;
  let steps: string[] = [];
  for (const name of [...flow.story, flow.event]) {
    snapshot = next(containerMachine, snapshot, events[name]);
    const walked = walk(containerMachine, snapshot, flow, outputsOf({ ...flow, event: name }));
    [snapshot, steps] = [walked.snapshot, walked.steps];
  }
  return flow.failing ? steps.slice(steps.indexOf(flow.failing) + 1) : steps;
}

/** The services of all machines: what the flows together have to reach. */
export function allSteps(): string[] {
  const machines = [containerMachine, checkpointMachine, restoreMachine];
  const names = machines.flatMap((machine) => Object.keys(machine.implementations.actors));
  return names.filter((name) => name !== 'checkpoint' && name !== 'restore');
}

function walk(machine: AnyStateMachine, from: AnyMachineSnapshot, flow: Flow, outputs = {}) {
  const steps: string[] = [];
  let snapshot = from;
  for (let service = serviceIn(snapshot); service; service = serviceIn(snapshot)) {
    steps.push(...(service in children ? childSteps(service as keyof typeof children, flow) : [service]));
    const how = service === flow.failing ? 'fails' : 'done';
    const ending = endingsOf(snapshot, outputs).find((candidate) => candidate.how === how);
    if (!ending) throw new Error(`${service} does not end`);
    snapshot = next(machine, snapshot, ending);
  }
  return { steps, snapshot };
}

const call = callOf('runc');
const children = {
  checkpoint: {
    machine: checkpointMachine,
    input: ({ event }: Flow) => ({
      ...{ container, call, wasPaused: false, life: { epoch: 1 } },
      request: requestOf(event === 'CHECKPOINT leaving'),
    }),
  },
  restore: { machine: restoreMachine, input: () => ({ container, image, fallbacks: [], epoch: 1, call }) },
};

function childSteps(service: keyof typeof children, flow: Flow): string[] {
  const { machine, input } = children[service];
  const first = initialTransition(machine as AnyStateMachine, input(flow))[0] as AnyMachineSnapshot;
  return walk(machine, first, flow, { prepareImage: [image] }).steps;
}

const outputsOf = ({ hasImage, failing, event }: Flow) => ({
  findImage: [{ life: { epoch: 1 }, images: hasImage ? [image] : [] }],
  restore: [failing ? { outcome: 'rolledBack', failure } : { outcome: 'restored', image }],
  checkpoint: [
    failing
      ? { outcome: 'failed', failure }
      : { outcome: event === 'CHECKPOINT' ? 'checkpointed' : 'continues', image },
  ],
  delete: [0],
});
