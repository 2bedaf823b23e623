import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allSteps, type Flow, type FlowName, flows, stepsOf } from '../support/crash-flows.ts';
import { CrashJob, type Template } from '../support/crash-job.ts';
import { type DirectRunc, directRunc } from '../support/direct-runc.ts';
import { installFailingCriu } from '../support/failing-criu.ts';
import { requireRealStack } from '../support/requires.ts';
import { rootfsListing } from '../support/rootfs-digest.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

/** What befalls a step: words for TARDIS_FAULT (src/actions/fault.ts). */
const faults = {
  'killed before': (step: string) => `before:${step}:kill`,
  'killed after': (step: string) => `after:${step}:kill`,
  'ENOSPC instead': (step: string) => `at:${step}:ENOSPC`,
  'EIO after': (step: string) => `after:${step}:EIO`,
  // The wrapper is killed, and its runc...
  '... hangs': (step: string) => `at:${step}:hang`,
  '... goes on': (step: string) => `at:${step}:hang`,
} as const;
type FaultName = keyof typeof faults;

const recovery = { name: 'recovery', story: ['CREATE', 'START'], event: 'RESUME' } as const;
/** `compressed` is part of the name of a case whose memory goes through the host's own disk. */
type Case = { flow: FlowName | 'recovery'; step: string; fault: FaultName; compressed: '' | ', compressed' };

const everyFault = Object.keys(faults) as FaultName[];
/** The steps that wait for a runc; whether these are all of them, "... hangs" finds out. */
const callRunc = new Set(
  [
    'dumpMemory',
    'endJob',
    'restoreMemory',
    'removeLeftovers',
    'createAfresh',
    'restoreGiven',
    'recover',
  ].concat(['start', 'pause', 'resume', 'delete']),
);
const cases: Case[] = [
  ...flows.flatMap((flow) => stepsOf(flow).map((step) => ({ flow: flow.name, step }))),
  { flow: recovery.name, step: 'recover' } as const,
]
  .flatMap((at) => everyFault.map((fault) => ({ ...at, fault, compressed: '' as const })))
  .filter(({ step, fault }) => fault !== '... goes on' || callRunc.has(step));
/** Where a compressed image is made and restored in another way than others are. */
const compressedCases = cases
  .filter(({ flow }) => flow === 'checkpoint leaving it running' || flow === 'restore')
  .filter(({ step }) => ['dumpMemory', 'describeImage', 'handOver', 'restoreMemory'].includes(step))
  .map((given): Case => ({ ...given, compressed: ', compressed' }));
/** Points inside a step, where only a death is to be told from one before or after it. */
const points = ['commitImage.synced', 'commitImage.renamed', 'commitImage.entered', 'commitImage.drafted'];
const pointCases = (['checkpoint with exit', 'checkpoint leaving it running'] as const).flatMap((flow) =>
  points.map((step): Case => ({ flow, step, fault: 'killed before', compressed: '' })),
);

const nameOf = ({ flow, compressed, step, fault }: Case): string => `${flow}${compressed}\t${step}\t${fault}`;

/** What the container carries, by what is said of it in the name of a case. */
const settings = { '': {}, ', compressed': { TARDIS_COMPRESSION_LEVEL: '1' } };

describe.skipIf(requireRealStack().skip)('a wrapper that meets a fault at any of its steps', () => {
  let stack: Stack;
  let runc: DirectRunc;
  const templates = new Map<string, Template>();
  const pathWithout: Partial<Record<string, string>> = {};
  const outcomes = new Map<string, string>();

  beforeAll(async () => {
    stack = await startStack({ config: { faultInjection: true }, rootJobsOnly: true });
    runc = await directRunc(stack);
    for (const [step, command] of [
      ['dumpMemory', 'checkpoint'],
      ['restoreMemory', 'restore'],
    ] as const) {
      const binDir = join(stack.dir, `without-${command}`);
      mkdirSync(binDir);
      installFailingCriu({ ...stack, binDir }).fail(command);
      pathWithout[step] = [binDir, stack.env.PATH].join(delimiter);
    }
    for (const [compressed, more] of Object.entries(settings)) {
      const job = await CrashJob.make(stack, runc, `template${compressed.length}`, { more });
      await job.begin('create').status();
      await job.start();
      await job.countsOn(3);
      expect(await job.checkpoint([])).toMatchObject({ exitCode: 0 });
      const pages = readdirSync(join(job.images, '1/checkpoint')).filter((name) => name.startsWith('pages-'));
      expect(pages.every((name) => name.endsWith('.zst'))).toBe(compressed !== '');
      templates.set(compressed, { images: job.images, last: job.ticks.length });
      await job.run(['delete', '--force']);
      expect(await job.leftovers()).toEqual([]);
    }
  });
  afterAll(async () => {
    console.log(tableOf(outcomes));
    await stack?.stop();
  });

  test('should be every step that the machines have', () => {
    const reached = new Set(cases.map(({ step }) => step));
    expect(allSteps().filter((step) => !reached.has(step))).toEqual([]);
  });

  let count = 0;
  const takeTurns = turns(3);

  const all = [...cases, ...pointCases, ...compressedCases];
  test.concurrent.each(all)('$flow$compressed: $step $fault', async (given) => {
    count += 1;
    const id = `c${count}`;
    await takeTurns(async () => {
      const trial = new Trial(
        given,
        await CrashJob.make(stack, runc, id, { more: settings[given.compressed] }),
      );
      try {
        await trial.prepare();
        outcomes.set(nameOf(given), await trial.run());
      } catch (error) {
        outcomes.set(nameOf(given), 'FAILED');
        const log = trial.job.warnings().join('\n  ');
        throw new Error(`${JSON.stringify(given)} (${id}): ${(error as Error).message}\nlogged:\n  ${log}`, {
          cause: error,
        });
      } finally {
        for (const pid of trial.job.processes()) process.kill(pid, 'SIGKILL');
        await trial.job.run(['delete', '--force']);
      }
    });
  });

  /** One flow with one fault, and what comes after it. */
  class Trial {
    readonly given: Case;
    readonly flow: Flow;
    readonly job: CrashJob;
    /** The root file system before anything was done to it. */
    #pristine: string[] = [];

    constructor(given: Case, job: CrashJob) {
      this.given = given;
      this.job = job;
      this.flow = flows.find(({ name }) => name === given.flow) ?? recovery;
    }

    get isBeginning(): boolean {
      return this.flow.event === 'CREATE' || this.flow.event === 'RESTORE';
    }

    get template(): Template {
      return templates.get(this.given.compressed) as Template;
    }

    /** Whether it is the rollback itself that fails. */
    get isRollbackSpoilt(): boolean {
      return (
        ['removeLeftovers', 'resetRootfs'].includes(this.given.step) && !this.given.fault.startsWith('killed')
      );
    }

    /** Whether what clears up is told to do nothing: a partial image then stays. */
    get isClearingSpoilt(): boolean {
      return ['undo', 'recover'].includes(this.given.step) && this.given.fault === 'ENOSPC instead';
    }

    get env(): Record<string, string> {
      const { step, fault } = this.given;
      const words = step.includes('.') ? `at:${step}:kill` : faults[fault](step);
      const PATH = this.flow.failing && pathWithout[this.flow.failing];
      return { TARDIS_FAULT: words, ...(PATH ? { PATH } : {}) };
    }

    async prepare(): Promise<void> {
      const { job, flow } = this;
      if (flow.hasImage) job.takeImage(this.template);
      if (this.isBeginning) this.#pristine = await rootfsListing(join(job.bundle, 'rootfs'));
      for (const event of flow.story) {
        if (event === 'CREATE') expect(await job.begin('create').status(), job.call?.output()).toBe(0);
        else expect(await job.run([event.toLowerCase()])).toMatchObject({ exitCode: 0 });
        if (event === 'START') await job.countsOn();
      }
      if (!flow.hasImage && flow.story.length > 0) job.takeImage(this.template);
      if (flow === recovery) await job.checkpoint([], { TARDIS_FAULT: 'after:dumpMemory:kill' });
    }

    /** Its command; whether it has been answered with 0. */
    async #ask(): Promise<boolean> {
      const { job, env } = this;
      switch (this.flow.event) {
        case 'CREATE':
          return (await job.begin('create', env).status()) === 0;
        case 'RESTORE':
          return (await job.begin('restore', env, join(this.template.images, '1/checkpoint')).status()) === 0;
        case 'CHECKPOINT leaving':
          return (await job.checkpoint(['--leave-running'], env)).exitCode === 0;
        case 'CHECKPOINT':
          return (await job.checkpoint([], env)).exitCode === 0;
        case 'DELETE':
          return (await job.run(['delete', '--force'], env)).exitCode === 0;
        default:
          return (await job.run([this.flow.event.toLowerCase()], env)).exitCode === 0;
      }
    }

    async run(): Promise<string> {
      const { job } = this;
      const { fault } = this.given;
      const asking = this.#ask();
      if (!fault.startsWith('...')) return this.#goOn(await asking, (words) => job.run(words));
      const ended = asking.then(() => 'ended' as const);
      const hanging = waitFor('runc to hang', () => job.hanging());
      hanging.catch(() => {});
      const pid = await Promise.race([ended, hanging]);
      expect(pid !== 'ended').toBe(callRunc.has(this.given.step));
      if (pid === 'ended') return '-';
      for (const wrapper of job.wrappers()) process.kill(wrapper, 'SIGKILL');
      await waitFor('the wrapper to end', () => job.wrappers().length === 0);
      return this.#goOn(false, async (words) => {
        // A forced delete ends what hangs at once.
        const isPatient = fault === '... goes on' || words[0] === 'delete';
        const asked = job.run(words, isPatient ? {} : { TARDIS_LOCK_TIMEOUT_SECONDS: '1' });
        if (fault === '... goes on' && words[0] !== 'delete' && job.hanging()) {
          await waitFor('the next command to wait', () => job.isAwaited());
          process.kill(pid, 'SIGCONT');
        }
        await asked;
        // Only now: a caller that reads to the end hears of it when the orphan has ended, too.
        expect(await asking).toBe(false);
      });
    }

    /** What a caller does next, and which of the three states the job is in then. */
    async #goOn(answered: boolean, next: (words: string[]) => Promise<unknown>): Promise<string> {
      const { job, flow } = this;
      if (flow.event === 'DELETE') {
        await next(['delete', '--force']);
        expect(await job.leftovers()).toEqual([]);
        return 'gone';
      }
      if (this.isBeginning) {
        const isUsed = answered || this.given.fault === 'killed after' || this.given.fault === '... goes on';
        if (isUsed) await next(flow.event === 'RESTORE' ? ['resume'] : ['start']);
        if (isUsed && (await job.status()) === 'running') return this.#runsOn();
        expect(answered).toBe(false);
        await next(['delete', '--force']);
        // A rollback that failed is kept for the next create in this bundle.
        const isPending = existsSync(join(job.bundle, 'rootfs.tardis-rollback'));
        expect(isPending && !this.isRollbackSpoilt).toBe(false);
        expect(await job.leftovers()).toEqual(isPending ? ['rootfs.tardis-rollback'] : []);
        if (!isPending) expect(await rootfsListing(join(job.bundle, 'rootfs'))).toEqual(this.#pristine);
        // The same id and bundle once more.
        expect(await job.begin('create').status()).toBe(0);
        await job.start();
        await this.#runsOn();
        return flow.hasImage ? 'not created; then resumes' : 'not created; then starts';
      }
      const [word] = flow.event === 'START' ? ['start'] : ['resume'];
      await next([word]);
      const status = await job.status();
      if (status === 'gone') return this.#resumesElsewhere();
      expect(status).toBe('running');
      return this.#runsOn();
    }

    async #runsOn(): Promise<string> {
      const { job, flow } = this;
      await job.countsOn();
      const litter = await job.litter();
      expect(litter).toEqual(this.isClearingSpoilt ? ['image 2.partial'] : []);
      const expected = flow.hasImage || flow.event === 'RESTORE' ? this.template.last + 1 : 1;
      const image = await job.currentImage();
      let outcome = image > 1 ? `runs on, image ${image}` : 'runs on';
      if (expected > 1) outcome = job.ticks[0] === 1 ? 'afresh' : 'resumes';
      if (outcome === 'afresh') expect(job.warnings()).not.toEqual([]);
      else expect(job.ticks[0]).toBe(expected);
      if (flow.event.startsWith('CHECKPOINT') && image === 1 && existsSync(job.imagePath)) {
        expect(readdirSync(job.imagePath)).toEqual([]);
      }
      await job.run(['delete', '--force']);
      expect(await job.leftovers()).toEqual(litter);
      return outcome;
    }

    async #resumesElsewhere(): Promise<string> {
      const { job } = this;
      expect(await job.currentImage()).toBe(2);
      await job.run(['delete', '--force']);
      expect(await job.leftovers()).toEqual([]);
      const after = await CrashJob.make(stack, runc, `${job.id}-next`, { imagesOf: job.id });
      expect(await after.begin('create').status()).toBe(0);
      await after.start();
      await after.countsOn();
      expect(after.ticks[0]).toBe(job.ticks.length + 1);
      await after.run(['delete', '--force']);
      expect(await after.leftovers()).toEqual([]);
      return 'resumes elsewhere';
    }
  }
});

/** Lets so many run at once; the others wait for their turn. */
function turns(atOnce: number): (work: () => Promise<void>) => Promise<void> {
  const waiting: (() => void)[] = [];
  let working = 0;
  return async (work) => {
    if (working >= atOnce) await new Promise<void>((resolve) => waiting.push(resolve));
    else working += 1;
    try {
      await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else working -= 1;
    }
  };
}

function tableOf(outcomes: ReadonlyMap<string, string>): string {
  const rows = new Map<string, Map<string, string>>();
  for (const [name, outcome] of outcomes) {
    const [flow = '', step = '', fault = ''] = name.split('\t');
    const row = `${flow}: ${step}`;
    rows.set(row, (rows.get(row) ?? new Map()).set(fault, outcome));
  }
  const header = ['step', ...everyFault];
  const lines = [...rows].map(([name, cells]) => [
    name,
    ...everyFault.map((fault) => cells.get(fault) ?? ''),
  ]);
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
