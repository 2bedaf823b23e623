import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
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
import { readManifest, writeManifest } from '../../src/actions/manifest.ts';
import type { Container } from '../support/engine.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { type FailingCriu, installFailingCriu } from '../support/failing-criu.ts';
import { type Gate, gateBeforeRunc, installGate } from '../support/gate.ts';
import { imageNames } from '../support/image-names.ts';
import { busyboxImage } from '../support/images.ts';
import { enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { rollbacksIn } from '../support/rollbacks.ts';
import { rootfsListing } from '../support/rootfs-digest.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { mountsUnder } from '../support/sweep.ts';

/** Changes, adds, and removes files before it counts, so that a root file system that was not put back would show. */
const script = `
  set -e
  echo more >>/etc/group
  chmod 600 /etc/passwd
  chown 1000:1000 /var/tmp
  setfattr -n user.note -v added /etc 2>/dev/null || true
  rm /bin/yes
  rm -r /home/job
  ln -sf /etc/group /bin/wget
  mkdir -p /data/deep
  echo new >/data/deep/file
  mkfifo /data/fifo
  i=0
  while :; do i=$((i+1)); echo tick $i; echo $i >/data/tick; sleep 0.1; done`;

/** What there is to see while a restore is under way. */
type Held = { applied: string[]; mounts: string[] };

describe.skipIf(requireRealStack().skip)('a restore that fails', () => {
  let stack: Stack;
  let runc: Gate;
  let tardis: Gate;
  let criu: FailingCriu;
  let run: (id: string, key: string) => Promise<Container>;
  /** The job's images, and a copy of them as they were made. */
  let images: string;
  let pristine: string;
  /** The root file system of a container that never had an image. */
  let untouched: string[];

  const key = 'job';
  const bundleOf = (id: string) =>
    join(stack.dir, 'state/io.containerd.runtime.v2.task', stack.namespace, id);
  const rootfs = (id: string, mtimes = true) => rootfsListing(join(bundleOf(id), 'rootfs'), { mtimes });

  beforeAll(async () => {
    stack = await startStack();
    const image = await busyboxImage(stack);
    tardis = installGate(stack.dir, 'tardis', stack.runtime);
    runc = gateBeforeRunc(stack);
    criu = installFailingCriu(stack);
    const engine = ctrEngine({ ...stack, runtime: tardis.path });
    run = (id, key) => engine.run({ id, image, args: ['sh', '-c', script], env: enabled(key) });

    runc.stopAt('create');
    const first = run('first', key);
    await runc.stopped('create');
    untouched = await rootfs('first', false);
    runc.open();
    const container = await first;
    await container.waitForLine(/^tick 3$/);
    await container.checkpoint({ exit: true });
    await container.waitForExit();
    await container.remove();
    images = join(stack.checkpointRoot, key);
    pristine = join(stack.dir, 'pristine');
    cpSync(images, pristine, { recursive: true, verbatimSymlinks: true });
  });
  afterAll(() => stack?.stop());
  /** Runs a container that shall start afresh, and looks at its root file system before Tardis and before runc. */
  async function runAfresh(id: string, held?: Held) {
    tardis.stopAt('create');
    runc.stopAt('restore', 'create');
    onTestFinished(() => {
      tardis.open();
      runc.open();
    });
    const running = run(id, key);
    await tardis.stopped('create');
    const before = await rootfs(id);
    tardis.open();
    if (held) {
      await runc.stopped('restore');
      held.applied = await rootfs(id);
      held.mounts = mountsUnder(stack.dir);
      runc.pass();
    }
    await runc.stopped('create');
    const after = await rootfs(id);
    expect(await rootfs(id, false)).toEqual(untouched);
    runc.open();
    const container = await running;
    await container.waitForLine(/^tick 2$/);
    expect(ticksOf(container).slice(0, 2)).toEqual([1, 2]);
    return { container, before, after };
  }

  const historyOf = ({ bundle }: Container): { to: string }[] =>
    JSON.parse(readFileSync(join(bundle, 'tardis.json'), 'utf8')).history;

  /** What a rollback leaves behind on purpose: its history, a warning, a mark beside the image; and no error. */
  function expectRolledBack(container: Container, reason: RegExp): void {
    const states = historyOf(container).map(({ to }) => to.replace(/\/.*/, ''));
    expect(states.filter((state, i) => state !== states[i - 1]).slice(1)).toEqual([
      ...['alive.restoring', 'alive.rolledBack', 'alive.created', 'alive.starting', 'alive.running'],
    ]);
    const logged = linesOf(stack.logFile).filter(({ level }) => level !== 'info');
    expect(logged).toEqual([
      expect.objectContaining({ level: 'warn', msg: expect.stringMatching(reason), id: container.id }),
    ]);
    expect(linesOf(join(container.bundle, 'log.json')).filter(({ level }) => level === 'error')).toEqual([]);
    expect(linesOf(join(images, '1.failed.jsonl'))).toEqual([
      { at: expect.any(String), container: container.id, reason: expect.stringMatching(reason) },
    ]);
    expect(imageNames(images)).toEqual(['1', '1.failed.jsonl', 'current']);
  }

  function linesOf(file: string): Record<string, unknown>[] {
    const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  function cgroupsNamed(name: string): string[] {
    const top = '/sys/fs/cgroup';
    return readdirSync(top)
      .flatMap((controller) => [
        join(top, controller, stack.namespace, name),
        join(top, stack.namespace, name),
      ])
      .filter(existsSync);
  }

  beforeEach(() => {
    onTestFailed(() => console.log(stack.logs()));
    rmSync(images, { recursive: true, force: true });
    cpSync(pristine, images, { recursive: true, verbatimSymlinks: true });
    rmSync(stack.logFile, { force: true });
  });

  /** Flips the last bit of a byte in the middle of a file. */
  const flip = (file: string): void => {
    const bytes = readFileSync(file);
    const at = bytes.length >> 1;
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    writeFileSync(file, bytes);
  };
  const edit = (file: string, change: object): void =>
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...change }));

  const damages: { title: string; damage: (image: string) => void; reason: RegExp }[] = [
    {
      title: 'a flipped bit in the memory',
      damage: (image) => flip(join(image, 'checkpoint/pages-1.img')),
      reason: /checkpoint\/pages-1\.img has SHA-256 \w+, the manifest says \w+; the image was damaged/,
    },
    {
      title: 'a flipped bit in the files',
      damage: (image) => flip(join(image, 'rootfs-diff.tar')),
      reason: /rootfs-diff\.tar has SHA-256 \w+, the manifest says \w+; the image was damaged/,
    },
    {
      title: 'a file that was cut short',
      damage: (image) => truncateSync(join(image, 'checkpoint/core-1.img'), 10),
      reason: /checkpoint\/core-1\.img has 10 bytes, the manifest says \d+/,
    },
    {
      title: 'a file that is missing',
      damage: (image) => rmSync(join(image, 'checkpoint/inventory.img')),
      reason: /the image lacks checkpoint\/inventory\.img/,
    },
    {
      title: 'a file too many',
      damage: (image) => writeFileSync(join(image, 'checkpoint/core-99.img'), ''),
      reason: /the image holds checkpoint\/core-99\.img, which its manifest does not name/,
    },
    {
      title: 'half a manifest',
      damage: (image) => truncateSync(join(image, 'tardis.json'), 500),
      reason: /tardis\.json is not a manifest of this Tardis/,
    },
    {
      title: 'no manifest',
      damage: (image) => rmSync(join(image, 'tardis.json')),
      reason: /tardis\.json is not a manifest of this Tardis .*ENOENT/,
    },
    {
      title: 'the manifest of another job',
      damage: (image) => writeManifest(image, { ...readManifest(image), key: 'another' }),
      reason: /the image is of the job another, expected job/,
    },
    {
      title: 'a manifest that was changed',
      damage: (image) => edit(join(image, 'tardis.json'), { key: 'another' }),
      reason: /tardis\.json is not a manifest of this Tardis .*its own SHA-256/,
    },
    {
      title: 'the manifest of a later Tardis',
      damage: (image) => edit(join(image, 'tardis.json'), { schemaVersion: 99 }),
      reason: /tardis\.json is not a manifest of this Tardis .*schemaVersion/,
    },
  ];

  test.each(damages)(
    'should start the job afresh, and keep the image, for $title',
    async ({ damage, reason }) => {
      damage(join(images, '1'));
      const damaged = await rootfsListing(join(images, '1'));
      const { container, before, after } = await runAfresh('damaged');
      expect(after).toEqual(before);
      expectRolledBack(container, reason);
      expect(await rootfsListing(join(images, '1'))).toEqual(damaged);
      expect(readlinkSync(join(images, 'current'))).toBe('1');
      await container.remove();
    },
  );

  test('should put the root file system back when CRIU fails over an image whose files were applied already', async () => {
    criu.fail('restore');
    onTestFinished(() => criu.behave());
    const held: Held = { applied: [], mounts: [] };
    const { container, before, after } = await runAfresh('criu-fails', held);
    expect(held.applied).not.toEqual(before);
    expect(held.applied.join('\n')).toMatch(/data\/deep\/file/);
    expect(after).toEqual(before);
    expectRolledBack(container, /CRIU could not restore the image: /);
    const steps = historyOf(container).map(({ to }) => to);
    expect(steps).toEqual(
      expect.arrayContaining([
        'alive.restoring/restoringMemory',
        'alive.restoring/rollingBack.removingLeftovers',
      ]),
    );
    expect(rollbacksIn(join(stack.dir, 'scratch'))).toEqual([]);
    expect(readdirSync(container.runcRoot)).toEqual(['criu-fails']);
    expect(mountsUnder(stack.dir)).toEqual(held.mounts);

    // Its image was sound: another container carries it on, with the changes that the first one had made.
    criu.behave();
    await container.remove();
    expect(cgroupsNamed('criu-fails')).toEqual([]);
    const next = await run('carried-on', key);
    await next.waitForLine(/^tick \d+$/);
    expect(ticksOf(next)[0]).toBeGreaterThan(3);
    await next.remove();
  });
});
