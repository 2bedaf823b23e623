import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { tasksInVfork } from '../../src/actions/vfork.ts';
import { useScratch } from '../support/action-scratch.ts';

const cgroup = useScratch();

// One that is there needs a real freezer: test/e2e/workloads.test.ts, "a program that is being started".
it('should name neither a task that is awake or asleep elsewhere, nor one that is gone', async () => {
  const asleep = spawn('sleep', ['1000'], { stdio: 'ignore' });
  const gone = spawn('true', { stdio: 'ignore' });
  try {
    await once(gone, 'exit');
    writeFileSync(cgroup.at('cgroup.procs'), `${process.pid}\n${asleep.pid}\n${gone.pid}\n`);
    expect(tasksInVfork(cgroup.path)).toEqual([]);
  } finally {
    asleep.kill('SIGKILL');
  }
});
