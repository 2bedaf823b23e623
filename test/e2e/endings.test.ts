import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
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
import { CrashJob } from '../support/crash-job.ts';
import { type DirectRunc, directRunc } from '../support/direct-runc.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { imageNames } from '../support/image-names.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { writeKey } from '../support/key-ledger.ts';
import { requireRealStack } from '../support/requires.ts';
import { run as command } from '../support/run.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { waitFor } from '../support/wait.ts';

/** Counts, and ends at SIGTERM as a job does that is asked to stop. */
const stopping = ['sh', '-c', `trap 'echo stopped; exit 0' TERM; ${counting[2]}`];
/** Counts to a number, and has done its work then. */
const countingTo = (last: number) => [
  'sh',
  '-c',
  `i=0; while [ $i -lt ${last} ]; do i=$((i+1)); echo tick $i; sleep 0.1; done`,
];

/** Counts, and has done its work when it finds a file. */
const untilTold = ['sh', '-c', 'i=0; until [ -e /go ]; do i=$((i+1)); echo tick $i; sleep 0.1; done'];

describe.skipIf(requireRealStack().skip)('how a job ends, and who carries it on', () => {
  let stack: Stack;
  let runc: DirectRunc;
  let image: string;

  beforeAll(async () => {
    stack = await startStack({ rootJobsOnly: true });
    runc = await directRunc(stack);
    image = await busyboxImage(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const run = (id: string, key: string, args = counting) =>
    ctrEngine(stack).run({ id, image, args, env: enabled(key) });
  const imagesOf = (key: string) => imageNames(join(stack.checkpointRoot, key));

  test('a job that has ended and is deleted with a signal, as by `ctr tasks rm -f`, does not run again', async () => {
    const first = await run('done-1', 'done', countingTo(12));
    await first.waitForLine(/^tick 3$/);
    await first.checkpoint();
    await waitFor('the job to end', async () => (await first.status()) === 'stopped');
    // The shim sends SIGKILL to all that is left before it deletes.
    await first.remove();
    const second = await run('done-2', 'done', countingTo(12));
    await second.waitForLine(/^tick 2$/);
    expect(ticksOf(second)[0]).toBe(1);
    await second.remove();
  });

  test('a stop signal that comes while the job is frozen for its last checkpoint does not reach its next life', async () => {
    const job = await CrashJob.make(stack, runc, 'stopped', { args: stopping });
    await job.begin('create').status();
    await job.start();
    await job.countsOn(3);
    await job.run(['pause']);
    await job.run(['kill']);
    expect(await job.checkpoint([])).toMatchObject({ exitCode: 0 });
    await job.run(['delete', '--force']);

    const next = await CrashJob.make(stack, runc, 'stopped-next', { args: stopping, imagesOf: 'stopped' });
    await next.begin('create').status();
    await next.start();
    await next.countsOn(3);
    expect(next.ticks[0]).toBe(job.ticks.length + 1);
    // One that is meant for this life reaches it.
    await next.run(['kill']);
    await waitFor('the job to stop', () => next.call?.output().includes('stopped'));
    await next.run(['delete', '--force']);
  });

  test('a predecessor that is deleted after its successor has begun takes nothing from it', async () => {
    const first = await run('dead', 'succession');
    await first.waitForLine(/^tick 2$/);
    await first.kill('SIGKILL');
    await waitFor('the job to be dead', async () => (await first.status()) === 'stopped');
    const second = await run('successor', 'succession');
    await second.waitForLine(/^tick 2$/);
    await first.remove();
    await second.checkpoint({ exit: true });
    await second.waitForExit();
    const last = ticksOf(second).length;
    await second.remove();
    const third = await run('third', 'succession');
    await third.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(third)[0]).toBe(last + 1);
    await third.remove();
  });

  test('a stranger with the job’s key does not take the job up, and its end ends nothing', async () => {
    const first = await run('owner-1', 'shared-key');
    await first.waitForLine(/^tick 3$/);
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    const last = ticksOf(first).length;
    await first.remove();

    const stranger = await run('stranger', 'shared-key', untilTold);
    await stranger.waitForLine(/^tick 2$/);
    const asked = await stranger.checkpoint({ mayFail: true });
    expect(asked.stderr).toMatch(/generation 1 of shared-key is of another container/);
    await stranger.exec(['touch', '/go']);
    await waitFor('the stranger to end', async () => (await stranger.status()) === 'stopped');
    await stranger.remove();
    expect(imagesOf('shared-key')).toEqual(['1', 'current']);

    const second = await run('owner-2', 'shared-key');
    await second.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(second)[0]).toBe(last + 1);
    await second.remove();
    expect(readFileSync(stack.logFile, 'utf8')).toContain('give it another TARDIS_CHECKPOINT_KEY');
  });

  /** A counting job whose configuration is changed before it is created and started. */
  async function started(
    id: string,
    change: (config: Config) => void,
    args = counting,
    { prepare = async () => {}, ...of }: Lineage = {},
  ): Promise<CrashJob> {
    const job = await CrashJob.make(stack, runc, id, { args, ...of });
    await prepare();
    const file = join(job.bundle, 'config.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as Config;
    change(config);
    writeFileSync(file, JSON.stringify(config));
    expect(await job.begin('create').status(), job.call?.output()).toBe(0);
    await job.start();
    await job.countsOn(2);
    return job;
  }

  test('a restored job that waits for its start is deleted without --force, as a created container is', async () => {
    const job = await started('held', () => {});
    const work = join(stack.dir, 'held-work');
    expect(await job.checkpoint(['--work-path', work])).toMatchObject({ exitCode: 0 });
    // What CRIU leaves for the caller is there as after runc's own checkpoint.
    expect(readdirSync(work).sort()).toEqual(['dump.log', 'stats-dump']);
    await job.run(['delete', '--force']);
    const next = await CrashJob.make(stack, runc, 'held-next', { imagesOf: 'held' });
    await next.begin('create').status();
    // As the OCI runtime specification has it, and every caller expects it; to runc it is paused.
    expect(JSON.parse((await next.run(['state'])).stdout)).toMatchObject({ id: next.id, status: 'created' });
    expect(await next.status()).toBe('paused');
    expect(await next.run(['delete'])).toMatchObject({ exitCode: 0 });
    expect(await next.leftovers()).toEqual([]);
    // It is not lost with that container.
    const third = await CrashJob.make(stack, runc, 'held-third', { imagesOf: 'held' });
    await third.begin('create').status();
    await third.start();
    await third.countsOn(2);
    expect(third.ticks[0]).toBe(job.ticks.length + 1);
    await third.run(['delete', '--force']);
  });

  test('a restored job sees no SIGCONT: neither its first process nor one that ignores the stop signals of a terminal', async () => {
    const child = `trap '' TTOU; trap 'echo the child was continued' CONT; while :; do sleep 0.1; done`;
    const args = [
      'sh',
      '-c',
      `sh -c "$1" & trap 'echo the init was continued' CONT; ${counting[2]}`,
      'sh',
      child,
    ];
    const job = await started('continued', () => {}, args);
    expect(await job.checkpoint([])).toMatchObject({ exitCode: 0 });
    await job.run(['delete', '--force']);
    const next = await started('continued-next', () => {}, args, { imagesOf: 'continued' });
    await next.countsOn(5);
    expect(next.call?.output()).not.toContain('was continued');
    // One that somebody sends does arrive.
    process.kill((await runc.state(next.id)).pid, 'SIGCONT');
    await next.call?.waitForLine(/^the init was continued$/);
    await next.run(['delete', '--force']);
  });

  test('a finished job of which nothing is to be kept leaves no image, nor do earlier ones; a killed job does', async () => {
    const none = { TARDIS_KEEP_FINISHED_SECONDS: '0' };
    const done = await started('over', () => {}, untilTold);
    const before = { imageRoot: dirname(done.images), key: 'before' };
    writeKey(before, 'life image 1 finished:preempted');
    expect(await done.checkpoint(['--leave-running'], none)).toMatchObject({ exitCode: 0 });
    expect(imageNames(done.images)).toEqual(['1', 'current']);
    writeFileSync(join(done.bundle, 'rootfs', 'go'), '');
    await waitFor('the job to end', async () => (await done.status()) === 'stopped');
    expect(await done.run(['delete'], none)).toMatchObject({ exitCode: 0 });
    expect(readdirSync(before.imageRoot)).toEqual([]);

    const killed = await started('cut-off', () => {});
    await killed.checkpoint(['--leave-running']);
    await killed.run(['delete', '--force'], none);
    expect(imageNames(killed.images)).toEqual(['1', 'current']);
  });

  test('a job in a user namespace is not ended for an image that could not be restored', async () => {
    const job = await started('mapped', ({ linux }) => {
      linux.namespaces.push({ type: 'user' });
      linux.uidMappings = [{ containerID: 0, hostID: 0, size: 65_536 }];
      linux.gidMappings = linux.uidMappings;
    });
    const { exitCode, stderr } = await job.checkpoint([]);
    expect([exitCode, stderr]).toEqual([1, expect.stringMatching(/^the container has a user namespace /)]);
    await job.countsOn(3);
    await job.run(['delete', '--force']);
  });

  /** A volume of a job's own, and how it gets into its configuration. */
  function volumeOf(name: string) {
    const source = join(stack.dir, name);
    mkdirSync(source);
    const mount = { destination: '/volume', type: 'bind', source, options: ['bind', 'rw'] };
    return { source, change: ({ mounts }: Config) => mounts.push(mount) };
  }

  test('a job is not ended for an image that lacks a file: open, unlinked, and kept by another name on a volume', async () => {
    const volume = volumeOf('rotated-volume');
    const args = [
      'sh',
      '-c',
      `exec 3>/volume/log; ln /volume/log /volume/log.1; rm /volume/log; ${counting[2]}`,
    ];
    const job = await started('rotated', volume.change, args);
    const { exitCode, stderr } = await job.checkpoint([]);
    expect([exitCode, stderr]).toEqual([
      1,
      expect.stringMatching(/\/volume\/log is open and was unlinked while another name keeps it/),
    ]);
    await job.countsOn(3);
    expect(readdirSync(volume.source)).toEqual(['log.1']);
    await job.run(['delete', '--force']);
  });

  test('a job is not ended for an image that needs a file in the memory of its host', async () => {
    const volume = volumeOf('memory-volume');
    await command('mount', ['-t', 'tmpfs', 'tmpfs', volume.source]);
    // Its images are on a disk, wherever a host's /tmp may be: who keeps those in memory, too, asks for no more.
    const [disk, images] = [mkdtempSync('/var/tmp/tardis-images-'), join(stack.dir, 'roots', 'in-memory')];
    mkdirSync(images, { recursive: true });
    await command('mount', ['--bind', disk, images]);
    onTestFinished(() => rmSync(disk, { recursive: true, force: true }));
    const job = await started('in-memory', volume.change, ['sh', '-c', `exec 3>/volume/shm; ${counting[2]}`]);
    const { exitCode, stderr } = await job.checkpoint([]);
    expect([exitCode, stderr]).toEqual([
      1,
      expect.stringMatching(
        /^the job has \/volume\/shm open, and \/volume is a volume in this host's memory/,
      ),
    ]);
    await job.countsOn(3);
    // Left running, it loses nothing: that image is of use on this host.
    expect(await job.checkpoint(['--leave-running'])).toMatchObject({ exitCode: 0 });
    expect(job.warnings().join()).toContain("in this host's memory");
    await job.run(['delete', '--force']);
    await command('umount', [volume.source, images]);
  });

  test('a job that has written on to a volume since its checkpoint goes on with its file cut back, where it asks for that', async () => {
    const volume = volumeOf('grown-volume');
    const log = join(volume.source, 'log');
    const both = 'echo $i >&3; echo $i >&4; echo';
    const writing = [
      'sh',
      '-c',
      `exec 3>/volume/log 4>>/volume/added; ${counting[2]?.replace('echo', both)}`,
    ];
    const numbersIn = (file: string) => readFileSync(file, 'utf8').trim().split('\n').map(Number);
    const job = await started('grown', volume.change, writing);
    expect(await job.checkpoint(['--leave-running'])).toMatchObject({ exitCode: 0 });
    expect(job.warnings().join()).toMatch(/the job writes to \/volume\/log on a volume/);
    await job.countsOn(3);
    await job.run(['kill', '--all']);
    await job.run(['delete', '--force']);
    const added = join(volume.source, 'added');
    const [written, alsoAdded] = [readFileSync(log, 'utf8'), readFileSync(added, 'utf8')];

    // Without a word from the job nothing is touched.
    const wary = await started('grown-wary', volume.change, writing, { imagesOf: 'grown' });
    expect(wary.warnings().join()).toMatch(
      /\/volume\/log on a volume has \d+ bytes, and had \d+ .*GROWN_FILES/,
    );
    expect(wary.ticks[0]).toBe(1);
    await wary.run(['delete', '--force']);

    writeFileSync(log, written);
    writeFileSync(added, alsoAdded);
    const more = { TARDIS_ON_GROWN_FILES: 'truncate' };
    const next = await started('grown-next', volume.change, writing, { imagesOf: 'grown', more });
    expect(next.ticks[0]).toBeGreaterThan(1);
    await waitFor('the file to grow', () => readFileSync(log, 'utf8').length > written.length);
    // One that is only appended to likewise, though CRIU would take it longer.
    for (const numbers of [numbersIn(log), numbersIn(added)])
      expect(numbers).toEqual(numbers.map((_, i) => i + 1));
    const kept = readFileSync(`${log}.tardis-cut.1`, 'utf8');
    expect(written.endsWith(kept) && kept.length > 0).toBe(true);
    await next.run(['delete', '--force']);
  });

  test('a file that is open, unlinked, and kept by another name is found again on an overlay over several file systems', async () => {
    const args = ['sh', '-c', `exec 3>/log; ln /log /log.1; rm /log; ${counting[2]}`];
    const layered = (name: string) => overlayOverMemory(stack, join(runc.bundles, name));
    const job = await started('layers', () => {}, args, { prepare: () => layered('layers') });
    expect(await job.checkpoint([]), job.warnings().join()).toMatchObject({ exitCode: 0 });
    await job.run(['delete', '--force']);
    const prepare = () => layered('layers-next');
    const next = await started('layers-next', () => {}, args, { imagesOf: 'layers', prepare });
    expect(next.ticks[0], next.warnings().join()).toBe(job.ticks.length + 1);
    await next.run(['delete', '--force']);
  });
});

/** What of a configuration these tests change. */
interface Config {
  mounts: object[];
  linux: { namespaces: { type: string }[]; uidMappings?: object[]; gidMappings?: object[] };
}

/** Whose images a job carries on from, and more of its settings; and what is done before it is created. */
interface Lineage {
  imagesOf?: string;
  more?: Record<string, string>;
  prepare?: () => Promise<void>;
}

/** Lays an overlay over a bundle's root file system, which a file system in memory then holds. */
async function overlayOverMemory({ dir }: Stack, bundle: string): Promise<void> {
  const [lower, upper, work] = ['lower', 'upper', 'work'].map((name) => join(bundle, name)) as [
    string,
    string,
    string,
  ];
  for (const directory of [lower, upper, work]) mkdirSync(directory);
  await command('mount', ['-t', 'tmpfs', 'tmpfs', lower]);
  const rootfs = join(bundle, 'rootfs');
  await command('cp', ['--archive', `${rootfs}/.`, lower]);
  const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
  await command('mount', ['-t', 'overlay', '-o', options, 'overlay', rootfs], { cwd: dir });
}
