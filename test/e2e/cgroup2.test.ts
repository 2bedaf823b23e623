import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
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
import { type Call, type DirectRunc, directRunc } from '../support/direct-runc.ts';
import type { Engine } from '../support/engine.ts';
import { engines } from '../support/engines.ts';
import { installFailingCriu } from '../support/failing-criu.ts';
import { imageNames } from '../support/image-names.ts';
import { debianImage } from '../support/images.ts';
import { enabled, ticksOf } from '../support/jobs.ts';
import { fixturesDir } from '../support/paths.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';

/** A child that is stopped, and a parent that says `tick` only while it is. */
const withStoppedChild = `
  sleep 1000 & child=$!
  kill -STOP $child
  until grep -q ') T ' /proc/$child/stat; do :; done
  i=0
  while :; do
    i=$((i+1))
    if grep -q ') T ' /proc/$child/stat; then echo tick $i; else echo "wrong: $(cat /proc/$child/stat)"; fi
    sleep 0.1
  done`;

describe.skipIf(requireRealStack({ docker: true }).skip)('a host with cgroup v2 alone', () => {
  let stack: Stack;
  let image: string;
  let runc: DirectRunc;
  let containerd: string;

  beforeAll(async () => {
    stack = await startStack({ docker: true, pathPrefix: [join(fixturesDir, 'cgroup2')] });
    image = await debianImage(stack);
    const pid = readFileSync(join(stack.dir, 'containerd.pid'), 'utf8').trim();
    containerd = `/proc/${pid}`;
    runc = await directRunc(stack, [join(fixturesDir, 'cgroup2/beside'), pid]);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  test('should be what the engines take this one for', async () => {
    const { stdout } = await stack.docker(['info', '--format', '{{.CgroupVersion}}']);
    expect(stdout).toBe('2');
    expect(existsSync(`${containerd}/root/sys/fs/cgroup/cgroup.controllers`)).toBe(true);
  });

  const jobs: { title: string; file: string; engine: Engine['name']; lives: number }[] = [
    { title: 'processes, threads, and a stopped child', file: 'processes_job.py', engine: 'ctr', lives: 2 },
    // A restored container in its turn is dumped from a cgroup that it was not first dumped from.
    {
      title: 'processes, threads, and a stopped child',
      file: 'processes_job.py',
      engine: 'docker',
      lives: 3,
    },
    { title: 'PostgreSQL under its own user', file: 'postgres_job.sh', engine: 'docker', lives: 2 },
  ];
  test.each(jobs)(
    "should carry $title on under $engine, in the new container's own cgroup",
    async ({ file, engine, lives }) => {
      const key = `${engine}-${file.replace(/\W/, '-')}`;
      let last = 0;
      for (let life = 1; life <= lives; life++) {
        const container = await engines[engine](stack).run({
          id: `${key}-${life}`,
          image,
          args: [file.endsWith('.py') ? 'python3' : 'sh', `/jobs/${file}`],
          env: enabled(key),
          binds: [{ source: join(fixturesDir, 'jobs'), destination: '/jobs', readOnly: true }],
          // ctr asks for CPU shares unless told otherwise; this host may have that controller under v1.
          flags: engine === 'ctr' ? ['--cpu-shares', '0'] : [],
        });
        await container.waitForLine(new RegExp(`^tick ${last + 4}$`), { timeoutMs: 60_000 });
        const cgroup = unifiedCgroup(readFileSync(`/proc/${await container.pid()}/cgroup`, 'utf8'));
        expect(cgroup).toMatch(new RegExp(`/${container.ociId}$`));
        // Docker gives a container a cgroup namespace here, whose top is its own cgroup.
        const seen = unifiedCgroup((await container.exec(['cat', '/proc/1/cgroup'])).stdout);
        expect(seen).toBe(engine === 'docker' ? '/' : cgroup);

        if (life < lives) await container.checkpoint({ exit: true });
        if (life < lives) await container.waitForExit();
        const ticks = ticksOf(container);
        expect(container.lines().filter((line) => !line.startsWith('tick '))).toEqual([]);
        expect(ticks).toEqual(Array.from(ticks, (_, i) => last + 1 + i));
        last += ticks.length;
        await container.remove();
      }
    },
  );

  /** The container's cgroup, and what it says of its tasks: their states by command name, the init's first. */
  const cgroupOf = (name: string) =>
    join(containerd, 'root/sys/fs/cgroup', `${stack.namespace}-direct`, name);
  const isFrozen = (name: string) =>
    /^frozen 1$/m.test(readFileSync(join(cgroupOf(name), 'cgroup.events'), 'utf8'));
  const stoppedTasks = (name: string) =>
    readFileSync(join(cgroupOf(name), 'cgroup.procs'), 'utf8')
      .split('\n')
      .filter((pid) => pid !== '' && /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))).length;
  const start = async (name: string, key: string): Promise<Call> => {
    const args = ['sh', '-c', withStoppedChild];
    const bundle = await runc.bundle(name, { args, env: enabled(key) });
    const call = runc.begin(['create', '--bundle', bundle, name]);
    expect({ status: await call.status(), output: call.output() }).toEqual({ status: 0, output: '' });
    return call;
  };

  test('should leave the hierarchy its mount options, also those that another CRIU has taken', async () => {
    const option = 'memory_recursiveprot';
    const options = () => {
      const mounts = readFileSync(`${containerd}/mountinfo`, 'utf8').split('\n');
      return mounts
        .find((line) => line.includes(' - cgroup2 '))
        ?.split(' ')
        .at(-1);
    };
    // A mount without options takes everybody's away: what CRIU does, and what puts this host right in the end.
    const takeOptions = () =>
      execFileSync('unshare', ['--mount', 'sh', '-c', 'mount -t cgroup2 none /mnt && umount /mnt']);
    onTestFinished(() => {
      takeOptions();
    });
    const first = await start('options-1', 'options');
    await runc.run(['start', 'options-1']);
    await first.waitForLine(/^tick 1$/);
    // Only now: runc itself mounts the hierarchy in a container that shares the host's cgroup namespace.
    const inside = ['nsenter', `--mount=${containerd}/ns/mnt`];
    execFileSync('env', [...inside, 'mount', '-o', `remount,${option}`, '/sys/fs/cgroup']);
    expect(options()).toBe(`rw,${option}`);
    await runc.run(['checkpoint', '--image-path', join(stack.dir, 'options-image'), 'options-1']);
    expect(options()).toBe(`rw,${option}`);

    takeOptions();
    expect(options()).toBe('rw');
    await start('options-2', 'options');
    expect(options()).toBe(`rw,${option}`);
    await runc.run(['delete', '--force', 'options-2']);
  });

  test('should hold a restored job frozen until its start, and leave its stopped child stopped', async () => {
    const first = await start('held-1', 'held');
    expect(isFrozen('held-1')).toBe(false);
    await runc.run(['start', 'held-1']);
    await first.waitForLine(/^tick 3$/);
    await runc.run(['checkpoint', '--image-path', join(stack.dir, 'held-image'), 'held-1']);
    const last = first.lines().length;
    expect(existsSync(cgroupOf('held-1'))).toBe(false);

    const second = await start('held-2', 'held');
    expect(isFrozen('held-2')).toBe(true);
    expect(stoppedTasks('held-2')).toBe(1);
    expect(existsSync(cgroupOf('held-1'))).toBe(false);
    expect(second.output()).toBe('');

    await runc.run(['start', 'held-2']);
    await second.waitForLine(new RegExp(`^tick ${last + 3}$`));
    expect(isFrozen('held-2')).toBe(false);
    expect(stoppedTasks('held-2')).toBe(1);
    const lines = [...first.lines(), ...second.lines()];
    expect(lines).toEqual(Array.from(lines, (_, i) => `tick ${i + 1}`));
    await runc.run(['delete', '--force', 'held-2']);
    expect(existsSync(cgroupOf('held-2'))).toBe(false);
  });

  test('should leave a container paused or running as it was, after a checkpoint and after a failed one', async () => {
    const criu = installFailingCriu(stack);
    onTestFinished(() => criu.behave());
    const job = await start('left', 'left');
    await runc.run(['start', 'left']);
    await job.waitForLine(/^tick 2$/);
    const checkpoint = () =>
      runc.run(['checkpoint', '--leave-running', '--image-path', join(stack.dir, 'left-image'), 'left'], {
        mayFail: true,
      });
    const images = () => imageNames(join(stack.checkpointRoot, 'left'));

    criu.fail('checkpoint');
    expect(await checkpoint()).toMatchObject({ exitCode: 1 });
    expect(isFrozen('left')).toBe(false);
    await job.waitForLine(new RegExp(`^tick ${job.lines().length + 2}$`));
    await runc.run(['pause', 'left']);
    expect(await checkpoint()).toMatchObject({ exitCode: 1 });
    expect(isFrozen('left')).toBe(true);
    expect(images()).toEqual([]);

    criu.behave();
    expect(await checkpoint()).toMatchObject({ exitCode: 0 });
    expect(isFrozen('left')).toBe(true);
    expect((await runc.state('left')).status).toBe('paused');
    await runc.run(['resume', 'left']);
    await job.waitForLine(new RegExp(`^tick ${job.lines().length + 2}$`));
    expect(await checkpoint()).toMatchObject({ exitCode: 0 });
    expect(isFrozen('left')).toBe(false);
    await job.waitForLine(new RegExp(`^tick ${job.lines().length + 2}$`));
    expect(images()).toEqual(['1', '2', 'current']);
    expect(job.lines()).toEqual(Array.from(job.lines(), (_, i) => `tick ${i + 1}`));
    await runc.run(['delete', '--force', 'left']);
  });
});

/** The path of cgroup v2 in the text of a /proc/PID/cgroup. */
function unifiedCgroup(text: string): string | undefined {
  return /^0::(.*)$/m.exec(text)?.[1];
}
