import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
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
import { namesIn, textOf } from '../../src/actions/read-or-nothing.ts';
import { trialCgroupOf } from '../../src/actions/trial-place.ts';
import type { Container } from '../support/engine.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { type FailingCriu, installFailingCriu } from '../support/failing-criu.ts';
import { imageNames } from '../support/image-names.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { processesBy } from '../support/proc.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';

describe.skipIf(requireRealStack().skip)('an image that is verified by a restore', () => {
  let stack: Stack;
  let image: string;
  let criu: FailingCriu;

  beforeAll(async () => {
    stack = await startStack({ rootJobsOnly: true });
    image = await busyboxImage(stack);
    criu = installFailingCriu(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => {
    onTestFailed(() => console.log(stack.logs()));
    onTestFinished(() => criu.behave());
  });

  const imagesOf = (key: string) => imageNames(join(stack.checkpointRoot, key));

  /** What is there of a copy of the job: files, a cgroup, mounts that anybody sees, processes. */
  const traces = ({ runcRoot, ociId }: Container): string[] => {
    const scratch = join(stack.dir, 'scratch');
    const cgroup = trialCgroupOf({ root: runcRoot, id: ociId });
    return [
      ...(existsSync(scratch) ? readdirSync(scratch, { recursive: true, withFileTypes: true }) : [])
        .filter((entry) => !entry.isDirectory() || entry.name === 'trial')
        .map(({ name }) => `file ${name}`),
      ...['', ...namesIn('/sys/fs/cgroup')]
        .map((controller) => join('/sys/fs/cgroup', controller, cgroup))
        .filter((path) => existsSync(path)),
      ...processesBy((words) => words.some((word) => word.includes('trial-restore.cjs'))).map(String),
      ...namesIn('/proc').filter(
        (pid) => /^\d+$/.test(pid) && textOf(`/proc/${pid}/cgroup`).includes(cgroup),
      ),
      ...namesIn('/proc').filter(
        (pid) => /^\d+$/.test(pid) && textOf(`/proc/${pid}/mountinfo`).includes('tardis-trial'),
      ),
    ];
  };

  /** How many images were restored beside a job. */
  const proofsOf = ({ ociId }: Container): number =>
    readFileSync(stack.logFile, 'utf8')
      .split('\n')
      .filter((line) => line.includes(`"id":"${ociId}"`) && line.includes('restored once beside the job'))
      .length;

  const expectToCountOn = async (job: Container): Promise<void> => {
    const at = ticksOf(job).at(-1) ?? 0;
    await job.waitForLine(new RegExp(`^tick ${at + 2}$`));
    expect(ticksOf(job)).toEqual(ticksOf(job).map((_, i) => i + 1));
  };

  test('is committed only then, and nothing of its copy is left on the host, nor changed on a volume', async () => {
    const key = 'proven';
    const volume = join(stack.dir, 'volume');
    mkdirSync(volume);
    // CRIU makes a file anew, where it was, that is open and deleted.
    const script = `cd /data; exec 6>gone; rm gone; exec 7>>list; echo here >&7; ${counting[2]}`;
    const job = await ctrEngine(stack).run({
      ...{ id: key, image, args: ['sh', '-c', script] },
      env: enabled(key, { TARDIS_VERIFY_BY_RESTORE: '1' }),
      binds: [{ source: volume, destination: '/data' }],
    });
    await job.waitForLine(/^tick 2$/);
    const lookAt = () =>
      ['.', 'list'].map((name) => {
        const { ino, size, mtimeMs } = statSync(join(volume, name));
        return { name, ino, size, mtimeMs };
      });
    const before = lookAt();

    await job.checkpoint();
    expect(imagesOf(key)).toEqual(['1', 'current']);
    expect(proofsOf(job)).toBe(1);
    expect(traces(job)).toEqual([]);
    await expectToCountOn(job);

    criu.fail('restore');
    const asked = await job.checkpoint({ exit: true, mayFail: true });
    expect(asked.exitCode).not.toBe(0);
    expect(asked.stderr.split('\n')[0]).toMatch(/the image could not be restored: /);
    expect(readdirSync(asked.imagePath)).toEqual([]);
    expect(imagesOf(key)).toEqual(['1', 'current']);
    expect(traces(job)).toEqual([]);
    await expectToCountOn(job);
    criu.behave();

    await job.checkpoint({ exit: true });
    await job.waitForExit();
    expect(lookAt()).toEqual(before);
    expect(imagesOf(key)).toEqual(['1', '2', 'current']);
    expect(proofsOf(job)).toBe(2);
    expect(traces(job)).toEqual([]);
    await job.remove();
  });
});
