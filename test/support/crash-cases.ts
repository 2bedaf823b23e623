import { type Flow, type FlowName, flows, stepsOf } from './crash-flows.ts';

/** What befalls a step, by the name of its column: words for TARDIS_FAULT (src/actions/fault.ts). */
const faults = {
  'killed before': (step: string) => `before:${step}:kill`,
  'killed after': (step: string) => `after:${step}:kill`,
  'ENOSPC instead': (step: string) => `at:${step}:ENOSPC`,
  'EIO after': (step: string) => `after:${step}:EIO`,
  // The wrapper is killed, and its runc...
  '... hangs': (step: string) => `at:${step}:hang`,
  '... goes on': (step: string) => `at:${step}:hang`,
  // The wrapper lives, and its runc...
  hangs: (step: string) => `at:${step}:hang`,
  // The wrapper dies, and nobody sends a command: only a guardian is there.
  'alone: before': (step: string) => `before:${step}:kill`,
  'alone: after': (step: string) => `after:${step}:kill`,
  'alone: hangs': (step: string) => `at:${step}:hang`,
  // The guardian is killed while runc works, and then...
  'no guardian: goes on': (step: string) => `at:${step}:hang`,
  'no guardian: killed': (step: string) => `at:${step}:hang`,
} as const;
export type FaultName = keyof typeof faults;
export const everyFault = Object.keys(faults) as FaultName[];

/** What is said of a case beside its flow: how its memory is kept, or by what its wrapper dies. */
export type Variant = '' | ', compressed' | ', verified' | ', its process group' | ', out of memory';

export interface Case {
  readonly flow: FlowName | 'recovery';
  readonly step: string;
  readonly fault: FaultName;
  readonly variant: Variant;
}

export const recovery = {
  name: 'recovery',
  story: ['CREATE', 'START'],
  event: 'RESUME',
} as const satisfies Omit<Flow, 'name'> & { name: 'recovery' };

/** Steps whose runc is Tardis's own: its time has a limit. */
const boundedRunc = ['dumpMemory', 'verifyImage', 'endJob', 'restoreMemory', 'removeLeftovers', 'recover'];
/** Steps whose runc is the caller's, with the caller's own words: it takes as long as it would without Tardis. */
const callersRunc = ['createAfresh', 'restoreGiven', 'start', 'pause', 'resume', 'delete'];
/** The steps that wait for a runc; whether these are all of them, "... hangs" finds out. */
export const callRunc: ReadonlySet<string> = new Set([...boundedRunc, ...callersRunc]);

/** The steps of a checkpoint in which the container may be frozen by it, or has been: its guardian's time. */
const guardedSteps = (flow: Flow): string[] =>
  flow.event.startsWith('CHECKPOINT') ? stepsOf(flow).filter((step) => step !== 'prepareImage') : [];

function isMeant(fault: FaultName, step: string, isGuarded: boolean): boolean {
  switch (fault) {
    case '... goes on':
      return callRunc.has(step);
    case 'hangs':
      return boundedRunc.includes(step);
    case 'alone: before':
    case 'alone: after':
      return isGuarded;
    case 'alone: hangs':
    case 'no guardian: goes on':
    case 'no guardian: killed':
      return isGuarded && callRunc.has(step);
    default:
      return true;
  }
}

/** Every flow's every step with every fault that it can meet. */
export const cases: Case[] = [
  ...flows.flatMap((flow) =>
    stepsOf(flow).map((step) => ({
      ...{ flow: flow.name, step, isGuarded: guardedSteps(flow).includes(step) },
    })),
  ),
  { flow: recovery.name, step: 'recover', isGuarded: false } as const,
].flatMap(({ flow, step, isGuarded }) =>
  everyFault
    .filter((fault) => isMeant(fault, step, isGuarded))
    .map((fault): Case => ({ flow, step, fault, variant: '' })),
);

/** Where a compressed image is made and restored in another way than others are. */
const compressedCases = cases
  .filter(({ flow }) => flow === 'checkpoint leaving it running' || flow === 'restore')
  .filter(({ step }) => ['dumpMemory', 'describeImage', 'handOver', 'restoreMemory'].includes(step))
  .filter(({ fault }) => !/^(alone|no guardian)/.test(fault))
  .map((given): Case => ({ ...given, variant: ', compressed' }));

/** Other deaths than that of the wrapper's process alone. */
const deathCases = cases
  .filter(({ step, fault }) => step === 'dumpMemory' && fault === 'alone: hangs')
  .flatMap((given): Case[] => [
    { ...given, variant: ', its process group' },
    { ...given, variant: ', out of memory' },
  ]);

/** Points inside a step, where only a death is to be told from one before or after it. */
const points = ['commitImage.synced', 'commitImage.renamed', 'commitImage.entered', 'commitImage.drafted'];
const pointCases = (['checkpoint with exit', 'checkpoint leaving it running'] as const).flatMap((flow) =>
  points.map((step): Case => ({ flow, step, fault: 'killed before', variant: '' })),
);

/** A step that only those have who ask for it; its point is where a copy of the job stands beside it. */
const verifiedCases = [
  { flow: 'checkpoint with exit', step: 'verifyImage', fault: 'hangs' },
  { flow: 'checkpoint with exit', step: 'verifyImage', fault: 'alone: hangs' },
  { flow: 'checkpoint with exit', step: 'verifyImage.restored', fault: 'alone: before' },
  { flow: 'checkpoint leaving it running', step: 'verifyImage.restored', fault: 'killed before' },
].map((given) => ({ ...given, variant: ', verified' }) as Case);

export const allCases: Case[] = [
  ...cases,
  ...pointCases,
  ...compressedCases,
  ...verifiedCases,
  ...deathCases,
];

export const flowOf = ({ flow }: Case): Flow => flows.find(({ name }) => name === flow) ?? recovery;

export const titleOf = ({ flow, variant, step, fault }: Case): string =>
  `${flow}${variant}: ${step}: ${fault}`;

/** What a case says in TARDIS_FAULT. */
export const wordsOf = ({ step, fault }: Case): string =>
  step.includes('.') ? `at:${step}:kill` : faults[fault](step);

/** Which state the job was in after each case, as a table. */
export function tableOf(outcomes: ReadonlyMap<Case, string>): string {
  const rows = new Map<string, Map<string, string>>();
  for (const [{ flow, variant, step, fault }, outcome] of outcomes) {
    const row = `${flow}${variant}: ${step}`;
    rows.set(row, (rows.get(row) ?? new Map()).set(fault, outcome));
  }
  const header = ['step', ...everyFault];
  const lines = [...rows].map(([name, cells]) => [
    name,
    ...everyFault.map((fault) => cells.get(fault) ?? ''),
  ]);
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
