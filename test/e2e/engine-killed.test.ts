import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  afterAll,
  beforeAll,
  beforeEach,
  describe,
  expect,
  onTestFailed,
  onTestFinished,
  test,
} from 'vitest';
import { indexedContainers } from '../../src/actions/container-index.ts';
import { noteEntry, readLedger } from '../../src/actions/ledger.ts';
import { processes } from '../../src/actions/processes.ts';
import { textOf } from '../../src/actions/read-or-nothing.ts';
import type { Container, Engine } from '../support/engine.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { dockerEngine } from '../support/engine-docker.ts';
import { type FailingCriu, installFailingCriu } from '../support/failing-criu.ts';
import { type Gate, gateBeforeRunc, installGate } from '../support/gate.ts';
import { imageNames } from '../support/image-names.ts';
import { busyboxImage } from '../support/images.ts';
import { enabled, ticksOf } from '../support/jobs.ts';
import { whichOrThrow } from '../support/paths.ts';
import { processesBy } from '../support/proc.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

/** Counts as `counting` does, and in a file too: whom dockerd's death leaves without a reader has that. */
const counting = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo tick $i; echo $i >/count; sleep 0.05; done'];

/** The number that a job has come to, in the root file system that its init sees. */
const countOf = (pid: number): number => Number(readFileSync(`/proc/${pid}/root/count`, 'utf8'));

/** That a job runs, whatever becomes of its output: it has come to three numbers more. */
async function expectToRun(pid: number): Promise<void> {
  let first: number | undefined;
  const further = () => {
    const count = countOf(pid);
    // A moment in which the file is empty reads as 0.
    if (count > 0) first ??= count;
    return first !== undefined && count >= first + 3;
  };
  await waitFor(`the job ${pid} to count on`, further, { timeoutMs: 15_000 });
}

const stateOf = ({ bundle }: Container): unknown =>
  JSON.parse(readFileSync(join(bundle, 'tardis.json'), 'utf8')).snapshot.value;

/** What the engine takes for paused can be resumed, and runs then, in every eye. */
async function resumeIfPaused(container: Container): Promise<void> {
  if ((await container.status()) === 'paused') await container.resume();
  expect(await container.status()).toBe('running');
  expect(stateOf(container)).toEqual({ alive: 'running' });
}

/** Checkpoints a job with exit, and lets its engine forget the container; the last number it has printed. */
async function end(job: Container): Promise<number> {
  await job.checkpoint({ exit: true });
  await job.waitForExit();
  const last = ticksOf(job).at(-1) ?? 0;
  await job.remove();
  return last;
}

/** That a job's new container carries on after this number; its engine has forgotten it afterwards. */
async function expectToFollow(last: number, begin: () => Promise<Container>): Promise<void> {
  const next = await begin();
  await next.waitForLine(new RegExp(`^tick ${last + 3}$`));
  expect(ticksOf(next)[0]).toBe(last + 1);
  await next.remove();
}

const runsIn = (engine: Engine, image: string) => (id: string, key: string) =>
  engine.run({ id, image, args: counting, env: enabled(key) });

/** What is in a container's cgroup. */
const tasksOf = (id: string): number[] =>
  processes().filter((pid) => textOf(`/proc/${pid}/cgroup`).includes(`/${id}\n`));

/** The wrappers at work on a container. */
const wrappersOf = (id: string): number[] =>
  processesBy((words) => words.includes(id) && words.some((word) => word.endsWith('/dist/tardis-runc.cjs')));

/** The runc that restores a container. */
const restoring = (id: string): number[] =>
  processesBy((words) => words.includes('restore') && words.includes(id));

describe.skipIf(requireRealStack().skip)('containerd is killed', () => {
  let stack: Stack;
  let run: ReturnType<typeof runsIn>;
  let criu: FailingCriu;
  let runc: Gate;
  let sync: Gate;

  beforeAll(async () => {
    stack = await startStack({ rootJobsOnly: true, config: { maxDumps: 1 } });
    run = runsIn(ctrEngine(stack), await busyboxImage(stack));
    criu = installFailingCriu(stack);
    runc = gateBeforeRunc(stack);
    sync = installGate(stack.binDir, 'sync', whichOrThrow('sync'));
    symlinkSync(sync.path, join(stack.binDir, 'sync'));
  });
  afterAll(() => stack?.stop());
  const behave = () => {
    criu.behave();
    runc.open();
    sync.open();
  };
  beforeEach(() => {
    onTestFailed(() => console.log(stack.logs()));
    return async () => {
      behave();
      await stack.containerd.start();
    };
  });
  const imagesOf = (key: string) => imageNames(join(stack.checkpointRoot, key));

  const moments = [
    {
      moment: 'CRIU dumps it',
      hold: () => criu.hang('checkpoint'),
      held: () => waitFor('criu to be called', () => criu.reached()),
    },
    {
      moment: 'its image is described',
      hold: () => runc.stopAt('--version'),
      held: () => runc.stopped('--version'),
    },
    {
      moment: 'its image is committed',
      hold: () => sync.stopAt('--file-system'),
      held: () => sync.stopped('--file-system'),
    },
    {
      moment: 'its image is committed and it is to be ended',
      hold: () => runc.stopAt('delete'),
      held: () => runc.stopped('delete'),
      committed: ['1', 'current'],
    },
  ];
  test.each([{ exit: false }, { exit: true }])(
    'a job whose checkpoint nobody waits for any more, after Ctrl-C, is not left frozen (exit: $exit)',
    async ({ exit }) => {
      const key = `interrupted-${exit}`;
      const job = await run(`${key}-1`, key);
      await job.waitForLine(/^tick 3$/);
      const pid = await job.pid();
      criu.hang('checkpoint');
      const words = ['--address', stack.socket, '--namespace', stack.namespace, 'tasks', 'checkpoint'];
      const paths = ['--image-path', join(stack.dir, key), '--work-path', join(stack.dir, `${key}-work`)];
      const args = [...words, ...(exit ? ['--exit'] : []), ...paths, job.id];
      const ctr = spawn('ctr', args, { env: stack.env, stdio: 'ignore' });
      const gone = once(ctr, 'exit');
      await waitFor('criu to be called', () => criu.reached());
      ctr.kill('SIGINT');
      await gone;
      criu.behave();
      // The wrapper may have gone with its caller, or may come to its end.
      const hasEnded = () => JSON.stringify(stateOf(job)).includes('checkpointed');
      const count = countOf(pid);
      await waitFor(
        'the job to run on, or to have ended with its image',
        () => hasEnded() || countOf(pid) > count + 3,
      );
      if (hasEnded()) {
        expect(imagesOf(key)).toEqual(['1', 'current']);
        await job.remove();
        return;
      }
      await waitFor('the wrapper to be gone', () => wrappersOf(job.id).length === 0);
      await resumeIfPaused(job);
      await end(job);
    },
  );

  test.each(moments)(
    'a job runs on when $moment, and can be checkpointed as soon as containerd is back',
    async ({ moment, hold, held, committed = [] }) => {
      const key = moment.replaceAll(' ', '-');
      const job = await run(`${key}-1`, key);
      await job.waitForLine(/^tick 2$/);
      const pid = await job.pid();
      hold();
      const asked = job.checkpoint({ exit: true, mayFail: true });
      await held();
      const before = ticksOf(job).length;

      await stack.containerd.kill();
      await expectToRun(pid);
      await job.waitForLine(new RegExp(`^tick ${before + 3}$`));
      expect((await asked).exitCode).not.toBe(0);
      behave();

      await stack.containerd.start();
      await resumeIfPaused(job);
      expect(imagesOf(key)).toEqual(committed);
      const last = await end(job);
      expect(last).toBeGreaterThan(before);
      await expectToFollow(last, () => run(`${key}-2`, key));
    },
  );

  test('a job runs while it waits for its turn to be dumped, and when containerd is killed then', async () => {
    const first = await run('first-1', 'first');
    const second = await run('second-1', 'second');
    for (const job of [first, second]) await job.waitForLine(/^tick 2$/);
    const pids = [await first.pid(), await second.pid()] as const;
    criu.hang('checkpoint');
    const asked = [first.checkpoint({ exit: true, mayFail: true })];
    await waitFor('criu to be called', () => criu.reached());
    asked.push(second.checkpoint({ exit: true, mayFail: true }));
    await waitFor(
      'the second checkpoint to be under way',
      () => JSON.stringify(stateOf(second)) === '{"alive":"checkpointing"}',
    );
    const before = ticksOf(second).length;
    await second.waitForLine(new RegExp(`^tick ${before + 5}$`));
    expect(stateOf(second)).toEqual({ alive: 'checkpointing' });
    const held = countOf(pids[0]);

    await stack.containerd.kill();
    await Promise.all(pids.map(expectToRun));
    expect(countOf(pids[0])).toBeGreaterThan(held);
    for (const { exitCode } of await Promise.all(asked)) expect(exitCode).not.toBe(0);
    behave();

    await stack.containerd.start();
    for (const job of [first, second]) await resumeIfPaused(job);
    await expectToFollow(await end(first), () => run('first-2', 'first'));
    await expectToFollow(await end(second), () => run('second-2', 'second'));
  });

  test('a job that an operator has paused stays paused, and can be resumed', async () => {
    const job = await run('paused', 'paused');
    await job.waitForLine(/^tick 2$/);
    await job.pause();
    const at = ticksOf(job).length;
    await stack.containerd.kill();
    await stack.containerd.start();
    expect(await job.status()).toBe('paused');
    expect(stateOf(job)).toEqual({ alive: 'paused' });
    expect(ticksOf(job)).toHaveLength(at);
    await job.resume();
    await job.waitForLine(new RegExp(`^tick ${at + 3}$`));
    await resumeIfPaused(job);
    await job.remove();
  });

  /** How the CRIU of a cut restore goes on, and the moment in which that has come to its end. */
  const goesOn = async (id: string) => {
    criu.behave();
    await waitFor('runc to have restored the job', () => restoring(id).length === 0);
    expect(tasksOf(id)).not.toEqual([]);
  };
  /** Another host takes a job up, and loses it again. */
  function visit(key: string): void {
    const home = join(stack.checkpointRoot, key);
    const claimant = { host: 'there', root: '/', id: 'visitor', wrapper: { pid: 1, startTime: 1 } };
    noteEntry(home, { kind: 'life', claimant });
    noteEntry(home, { kind: 'end', epoch: readLedger(home).last, how: 'killed' });
  }
  const endings = [
    { title: 'hangs', key: 'restore-hangs', begin: () => criu.sleep('restore'), goOn: async () => {} },
    { title: 'goes on', key: 'restore-goes-on', begin: () => criu.hang('restore'), goOn: goesOn },
    {
      title: 'goes on, and whose job another host takes up meanwhile,',
      key: 'restore-visited',
      begin: () => criu.hang('restore'),
      async goOn(id: string) {
        await goesOn(id);
        visit('restore-visited');
      },
    },
  ];
  test.each(endings)(
    'a restore whose CRIU $title is made good by the next one of its job',
    async ({ key, begin, goOn }) => {
      const first = await run(`${key}-1`, key);
      await first.waitForLine(/^tick 2$/);
      const last = await end(first);
      const id = `${key}-2`;
      begin();
      const refused = expect(run(id, key)).rejects.toThrow();
      await waitFor('criu to be called', () => criu.reached());

      await stack.containerd.kill();
      await refused;
      await goOn(id);
      criu.behave();
      await stack.containerd.start();
      // containerd knows no task of that id, and makes none while its shim is there.
      await stack.ctr(['containers', 'delete', id]);
      await expectToFollow(last, () => run(`${key}-3`, key));
      expect([...tasksOf(id), ...restoring(id)]).toEqual([]);
      expect(indexedContainers(stack.runDir)).toEqual([]);
      expect(readFileSync(stack.logFile, 'utf8')).not.toContain('cannot be ended');
    },
  );

  test('a create from scratch that goes on without its engine does not keep the job from the next one', async () => {
    const id = 'created-1';
    const settings = readFileSync(stack.configFile, 'utf8');
    const [script, reached] = ['slow-create', 'slow-create.reached'].map((name) => join(stack.dir, name));
    const create = `${whichOrThrow('runc')} "$@"; : >${reached}; exec sleep 60`;
    const text = `#!/bin/sh\ncase " $* " in *" create "*) ${create} ;; esac\nexec ${runc.path} "$@"\n`;
    writeFileSync(script as string, text, { mode: 0o755 });
    onTestFinished(() => writeFileSync(stack.configFile, settings));
    writeFileSync(stack.configFile, JSON.stringify({ ...JSON.parse(settings), realRunc: script }));
    const refused = expect(run(id, 'created')).rejects.toThrow();
    await waitFor('runc to have created the container', () => existsSync(reached as string));
    writeFileSync(stack.configFile, settings);
    await stack.containerd.kill();
    await refused;
    expect(tasksOf(id)).not.toEqual([]);
    await stack.containerd.start();
    await stack.ctr(['containers', 'delete', id]);
    const second = await run('created-2', 'created');
    await second.waitForLine(/^tick 2$/);
    expect([tasksOf(id), indexedContainers(stack.runDir).map((known) => known.id)]).toEqual([
      [],
      [second.id],
    ]);
    await expectToFollow(await end(second), () => run('created-3', 'created'));
  });
});

describe.skipIf(requireRealStack({ docker: true }).skip).each([
  { how: 'with live-restore', liveRestore: true },
  { how: 'without live-restore', liveRestore: false },
])('docker $how', ({ liveRestore }) => {
  let stack: Stack;
  let run: ReturnType<typeof runsIn>;
  let criu: FailingCriu;

  beforeAll(async () => {
    stack = await startStack({
      docker: true,
      rootJobsOnly: true,
      dockerdFlags: liveRestore ? ['--live-restore'] : [],
      config: { freezeStallSeconds: 2 },
    });
    const engine = dockerEngine(stack);
    const flags = ['--stop-timeout', '1'];
    // Without live-restore dockerd ends what it finds running, and waits for it.
    run = runsIn({ ...engine, run: (spec) => engine.run({ ...spec, flags }) }, await busyboxImage(stack));
    criu = installFailingCriu(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => {
    onTestFailed(() => console.log(stack.logs()));
    return async () => {
      criu.behave();
      await stack.containerd.start();
      await stack.dockerd.start();
    };
  });

  /** Asks for a checkpoint, and waits until CRIU is at it. */
  async function checkpointUntilCriu(
    job: Container,
  ): Promise<{ asked: ReturnType<Container['checkpoint']> }> {
    const asked = job.checkpoint({ exit: true, mayFail: true });
    await waitFor('criu to be called', () => criu.reached());
    return { asked };
  }

  test('a job runs on when containerd is killed while CRIU dumps it, and can be checkpointed as soon as it is back', async () => {
    const job = await run('containerd-1', 'containerd');
    await job.waitForLine(/^tick 2$/);
    const pid = await job.pid();
    criu.hang('checkpoint');
    const { asked } = await checkpointUntilCriu(job);
    await stack.containerd.kill();
    await expectToRun(pid);
    expect((await asked).exitCode).not.toBe(0);
    criu.behave();
    await stack.containerd.start();
    await waitFor('dockerd to find containerd again', async () => {
      await resumeIfPaused(job);
      return true;
    });
    await expectToFollow(await end(job), () => run('containerd-2', 'containerd'));
  });

  test('a job runs on when dockerd is killed and the dump fails', async () => {
    const ended = await run('fails-1', 'fails');
    await ended.waitForLine(/^tick 2$/);
    const last = await end(ended);
    const job = await run('fails-2', 'fails');
    await job.waitForLine(new RegExp(`^tick ${last + 2}$`));
    const pid = await job.pid();
    criu.sleep('checkpoint');
    const { asked } = await checkpointUntilCriu(job);
    await stack.dockerd.kill();
    expect((await asked).exitCode).not.toBe(0);
    await expectToRun(pid);
    criu.behave();
    await stack.dockerd.start();
    if (liveRestore) {
      await resumeIfPaused(job);
      await expectToRun(pid);
      // dockerd 28 has forgotten how to checkpoint what it finds running, under plain runc too.
    } else await job.waitForExit();
    await job.remove();
    await expectToFollow(last, () => run('fails-3', 'fails'));
  });

  test('a job carries on from its image when dockerd is killed and the dump succeeds', async () => {
    const job = await run('succeeds-1', 'succeeds');
    await job.waitForLine(/^tick 2$/);
    criu.hang('checkpoint');
    const { asked } = await checkpointUntilCriu(job);
    await stack.dockerd.kill();
    expect((await asked).exitCode).not.toBe(0);
    criu.behave();
    await waitFor('the image', () => imageNames(join(stack.checkpointRoot, 'succeeds')).includes('current'));
    await stack.dockerd.start();
    await job.waitForExit();
    const last = ticksOf(job).at(-1) ?? 0;
    await job.remove();
    await expectToFollow(last, () => run('succeeds-2', 'succeeds'));
  });
});
