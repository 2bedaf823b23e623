import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
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
import type { Container, Engine } from '../support/engine.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { engineNames, engines } from '../support/engines.ts';
import { type FailingCriu, installFailingCriu } from '../support/failing-criu.ts';
import { type Gate, installGate } from '../support/gate.ts';
import { imageNames } from '../support/image-names.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { projectRoot } from '../support/paths.ts';
import { requireRealStack } from '../support/requires.ts';
import { run } from '../support/run.ts';
import { type Stack, startStack } from '../support/stack.ts';

describe.skipIf(requireRealStack({ docker: true }).skip)('a checkpoint that fails', () => {
  const launcher = join(projectRoot, 'bin/tardis-runc');
  let gateDir: string;
  let gate: Gate;
  let stack: Stack;
  let image: string;
  let criu: FailingCriu;

  beforeAll(async () => {
    gateDir = mkdtempSync(join(tmpdir(), 'tardis-gate-'));
    gate = installGate(gateDir, 'tardis', launcher);
    stack = await startStack({ docker: true, runtime: gate.path, tmpfs: { checkpoints: '48m' } });
    image = await busyboxImage(stack);
    criu = installFailingCriu(stack);
  });
  afterAll(async () => {
    await stack?.stop();
    rmSync(gateDir, { recursive: true, force: true });
  });
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const stateOf = ({ bundle }: Container) =>
    JSON.parse(readFileSync(join(bundle, 'tardis.json'), 'utf8')).snapshot.value;
  const imagesOf = (key: string) => imageNames(join(stack.checkpointRoot, key));
  const filesIn = (dir: string) => (existsSync(dir) ? readdirSync(dir) : []);

  /** That the job goes on as if nothing had been tried: running, thawed, and without a lost or repeated number. */
  async function expectToCountOn(container: Container): Promise<void> {
    const at = ticksOf(container).length;
    await container.waitForLine(new RegExp(`^tick ${at + 3}$`));
    expect(ticksOf(container)).toEqual(ticksOf(container).map((_, i) => i + 1));
    expect(await container.status()).toBe('running');
    expect(stateOf(container)).toEqual({ alive: 'running' });
  }

  /** Asks for a checkpoint that must fail, and says what the engine showed first. */
  async function failedCheckpoint(container: Container, exit: boolean): Promise<string> {
    const asked = await container.checkpoint({ exit, mayFail: true });
    expect(asked.exitCode).not.toBe(0);
    expect(filesIn(asked.imagePath)).toEqual([]);
    return asked.stderr.split('\n')[0] ?? '';
  }

  describe.each(engineNames)('%s', (name) => {
    test.each([{ exit: true }, { exit: false }])(
      'should leave job and images as they were when CRIU fails, and succeed the next time (exit: $exit)',
      async ({ exit }) => {
        const key = `${name}-criu-${exit}`;
        const job = { image, args: counting, env: enabled(key) };
        const container = await engines[name](stack).run({ id: `${key}-1`, ...job });
        await container.waitForLine(/^tick 2$/);
        await container.checkpoint();
        expect(imagesOf(key)).toEqual(['1', 'current']);

        criu.fail('checkpoint');
        onTestFinished(() => criu.behave());
        expect(await failedCheckpoint(container, exit)).toMatch(/CRIU could not dump the container: /);
        expect(imagesOf(key)).toEqual(['1', 'current']);
        expect(readlinkSync(join(stack.checkpointRoot, key, 'current'))).toBe('1');
        await expectToCountOn(container);

        criu.behave();
        await container.checkpoint({ exit: true });
        await container.waitForExit();
        const last = ticksOf(container).length;
        expect(imagesOf(key)).toEqual(['1', '2', 'current']);
        await container.remove();
        const next = await engines[name](stack).run({ id: `${key}-2`, ...job });
        await next.waitForLine(/^tick \d+$/);
        expect(ticksOf(next)[0]).toBe(last + 1);
        await next.remove();
      },
    );
  });

  describe('without room', () => {
    let ctr: Engine;
    beforeAll(() => {
      ctr = ctrEngine(stack);
    });
    const large = [
      {
        title: 'memory',
        script: `x=$(head -c 12000000 /dev/zero | tr '\\0' x)`,
        reason: /^[^\n]*no room is left on the file system of .*: cannot copy CRIU's files into the image: /,
      },
      {
        title: 'files',
        script: 'head -c 12000000 /dev/urandom >/large',
        reason: /^[^\n]*no room is left on the file system of .*: .*tar failed /,
      },
    ];

    test.each(large)(
      'should say what did not fit, keep the job, and succeed once there is room ($title)',
      async ({ title, script, reason }) => {
        const key = `full-${title}`;
        const args = ['sh', '-c', `${script}; ${counting[2]}`];
        const container = await ctr.run({ id: key, image, args, env: enabled(key) });
        await container.waitForLine(/^tick 2$/);
        const filler = join(stack.checkpointRoot, 'filler');
        onTestFinished(() => rmSync(filler, { force: true }));
        await run('dd', ['if=/dev/zero', `of=${filler}`, 'bs=1M', 'count=40']);

        for (const exit of [false, true]) {
          expect(await failedCheckpoint(container, exit)).toMatch(reason);
          expect(imagesOf(key)).toEqual([]);
          await expectToCountOn(container);
        }
        rmSync(filler);
        await container.checkpoint({ exit: true });
        expect(imagesOf(key)).toHaveLength(2);
        await container.remove();
        rmSync(join(stack.checkpointRoot, key), { recursive: true });
      },
    );

    test('should name the file that is in the place of the checkpoint root, and keep the job', async () => {
      const place = join(stack.dir, 'a-file');
      writeFileSync(place, 'not a directory');
      const env = enabled('misplaced', { TARDIS_CHECKPOINT_HOST_PATH: place });
      const container = await ctr.run({ id: 'misplaced', image, args: counting, env });
      await container.waitForLine(/^tick 2$/);
      expect(await failedCheckpoint(container, true)).toMatch(/ENOTDIR.*a-file|a-file.*ENOTDIR/);
      await expectToCountOn(container);
      expect(readFileSync(place, 'utf8')).toBe('not a directory');
      await container.remove();
    });
  });

  test('should be refused in every state but running and paused, with the reason on the first line', async () => {
    const ctr = ctrEngine(stack);
    onTestFinished(() => gate.open());
    const askFor = async (container: Pick<Container, 'runcRoot' | 'id'>) => {
      const imagePath = mkdtempSync(join(stack.dir, 'refused-'));
      const args = ['--root', container.runcRoot, 'checkpoint', '--image-path', imagePath, container.id];
      const { exitCode, stdout, stderr } = await run(launcher, args, { env: stack.env, mayFail: true });
      expect(filesIn(imagePath)).toEqual([]);
      return { exitCode, said: `${stdout}${stderr}` };
    };
    const refusal = (state: string) => ({
      exitCode: 1,
      said: `cannot checkpoint a container that is ${state}`,
    });
    const key = 'refused';
    const job = { image, args: counting, env: enabled(key) };
    const runcRoot = `/run/containerd/runc/${stack.namespace}`;

    gate.stopAt('start');
    const starting = ctr.run({ id: 'refused-1', ...job });
    await gate.stopped('start');
    expect(await askFor({ runcRoot, id: 'refused-1' })).toEqual(refusal('created'));
    gate.open();
    const first = await starting;
    await first.waitForLine(/^tick 2$/);
    await first.checkpoint({ exit: true });
    expect(await askFor(first)).toEqual(refusal('checkpointed'));
    await first.waitForExit();
    const last = ticksOf(first).length;
    await first.remove();

    gate.stopAt('start');
    const restarting = ctr.run({ id: 'refused-2', ...job });
    await gate.stopped('start');
    expect(await askFor({ runcRoot, id: 'refused-2' })).toEqual(refusal('restored'));
    gate.open();
    const second = await restarting;
    await second.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(second)[0]).toBe(last + 1);
    await second.kill('SIGKILL');
    // A refused checkpoint must not need the engine: it sees the end of the job before ctr is asked.
    await expect.poll(() => second.status(), { timeout: 30_000 }).toBe('stopped');
    expect(await askFor(second)).toEqual(refusal('stopped'));
    expect(imagesOf(key)).toEqual(['1', 'current']);
    await second.remove();
  });
});
