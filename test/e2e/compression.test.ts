import { existsSync, readdirSync, readFileSync } from 'node:fs';
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
import type { Container } from '../support/engine.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { type FailingCriu, installFailingCriu } from '../support/failing-criu.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';

describe.skipIf(requireRealStack().skip)('a job whose memory is compressed', () => {
  let stack: Stack;
  let image: string;
  let criu: FailingCriu;

  beforeAll(async () => {
    // The host compresses, where the job does not say.
    stack = await startStack({ config: { compressionLevel: 3 } });
    image = await busyboxImage(stack);
    criu = installFailingCriu(stack);
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const runJob = (key: string, life: number, more: Record<string, string> = {}) =>
    ctrEngine(stack).run({ id: `${key}-${life}`, image, args: counting, env: enabled(key, more) });
  const pagesOf = (directory: string) => readdirSync(directory).filter((name) => name.startsWith('pages-'));
  const inImage = (key: string) => pagesOf(join(stack.checkpointRoot, key, 'current/checkpoint'));
  /** What is left of containers on the host's own disk. */
  const waiting = () => {
    const scratch = join(stack.dir, 'scratch');
    if (!existsSync(scratch)) return [];
    return readdirSync(scratch, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  };

  /** How many images of a job were restored once beside it. */
  const proofsOf = ({ ociId }: Container): number =>
    readFileSync(stack.logFile, 'utf8')
      .split('\n')
      .filter((line) => line.includes(`"id":"${ociId}"`) && line.includes('restored once beside the job'))
      .length;

  test.each([
    { who: 'the host', settings: {}, suffix: '.img.zst' },
    {
      who: 'the job',
      settings: { TARDIS_COMPRESSION_LEVEL: '1', TARDIS_VERIFY_BY_RESTORE: '1' },
      suffix: '.img.zst',
    },
    { who: 'nobody', settings: { TARDIS_COMPRESSION_LEVEL: '0' }, suffix: '.img' },
  ])('should be carried on at the next number where $who wants it', async ({ who, settings, suffix }) => {
    const key = who.replace(' ', '-');
    const first = await runJob(key, 1, settings);
    await first.waitForLine(/^tick 3$/);
    await first.checkpoint();
    const at = ticksOf(first).length;
    await first.waitForLine(new RegExp(`^tick ${at + 2}$`));
    const { imagePath } = await first.checkpoint({ exit: true });
    await first.waitForExit();
    // One file for each process.
    const pages = ['pages-1', 'pages-2'];
    expect(inImage(key)).toEqual(pages.map((name) => name + suffix));
    expect(pagesOf(imagePath)).toEqual(pages.map((name) => `${name}.img`));
    expect(waiting()).toEqual([]);
    expect(proofsOf(first)).toBe('TARDIS_VERIFY_BY_RESTORE' in settings ? 2 : 0);
    const last = ticksOf(first).at(-1) as number;
    await first.remove();

    const second = await runJob(key, 2, settings);
    await second.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(second)[0]).toBe(last + 1);
    expect(waiting()).toEqual([]);
    await second.remove();
  });

  test('should run on after a dump that failed, and start from scratch after a restore that did', async () => {
    const key = 'failing';
    const first = await runJob(key, 1);
    await first.waitForLine(/^tick 2$/);
    onTestFinished(() => criu.behave());
    criu.fail('checkpoint');
    const { exitCode, imagePath } = await first.checkpoint({ mayFail: true });
    expect(exitCode).not.toBe(0);
    expect(existsSync(imagePath) ? readdirSync(imagePath) : []).toEqual([]);
    expect(waiting()).toEqual([]);
    criu.behave();
    const at = ticksOf(first).length;
    await first.waitForLine(new RegExp(`^tick ${at + 2}$`));
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    await first.remove();

    criu.fail('restore');
    const second = await runJob(key, 2);
    await second.waitForLine(/^tick 2$/);
    expect(ticksOf(second)[0]).toBe(1);
    expect(waiting()).toEqual([]);
    await second.remove();
  });
});
