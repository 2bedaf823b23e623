import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { ctrEngine } from '../support/engine-ctr.ts';
import { busyboxImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { rollbacksIn } from '../support/rollbacks.ts';
import { type Stack, startStack } from '../support/stack.ts';

describe.skipIf(requireRealStack().skip)('a root file system that is the container’s own as a whole', () => {
  let stack: Stack;
  let image: string;

  beforeAll(async () => {
    stack = await startStack({ rootJobsOnly: true });
    image = await busyboxImage(stack);
    await stack.ctr(['image', 'unpack', '--snapshotter', 'native', image], { mayFail: true });
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  test('is restored in a new container, without a copy of it in the bundle', async () => {
    const run = (id: string) =>
      ctrEngine(stack).run({
        ...{ id, image, args: counting, env: enabled('native') },
        flags: ['--snapshotter', 'native'],
      });
    const first = await run('native-1');
    await first.waitForLine(/^tick 2$/);
    await first.exec(['sh', '-c', 'echo kept >/made; rm /etc/hosts 2>/dev/null; true']);
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    const last = ticksOf(first).length;
    await first.remove();

    const second = await run('native-2');
    await second.waitForLine(new RegExp(`^tick ${last + 2}$`));
    expect(ticksOf(second)[0]).toBe(last + 1);
    expect((await second.exec(['cat', '/made'])).stdout).toBe('kept');
    expect(readdirSync(second.bundle).filter((name) => name.includes('rollback'))).toEqual([]);
    expect(rollbacksIn(join(stack.dir, 'scratch'))).toEqual([]);
    await second.remove();
  });
});
