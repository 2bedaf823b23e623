import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { afterEach, describe, expect, it } from 'vitest';
import { pidInContainer, signalTask, stoppedTasksIn } from '../../src/actions/stopped-tasks.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';

const children: ChildProcess[] = [];
/** Starts a program that says one line and then lives until its input ends. */
async function started(file: string, ...args: string[]): Promise<{ pid: number; said: string }> {
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'ignore'] });
  children.push(child);
  const [said] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return { pid: child.pid as number, said };
}
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
});

/** A pid that no process has: its own is gone for good. */
async function gonePid(): Promise<number> {
  const child = spawn('true');
  await once(child, 'exit');
  return child.pid as number;
}

describe('signalTask', () => {
  it('should pass over a task that is gone', async () => {
    const pid = await gonePid();
    signalTask(pid, 'SIGCONT');
    signalTask(pid, 'SIGSTOP');
  });

  it('should deliver the signal to one that is there', async () => {
    const { pid } = await started('sh', '-c', 'trap "exit 7" CONT; echo up; read wait');
    const [child] = children;
    const ended = once(child as ChildProcess, 'exit');
    signalTask(pid, 'SIGCONT');
    expect(await ended).toEqual([7, null]);
  });
});

describe('pidInContainer', () => {
  it('should be the pid itself where there is no other namespace', () => {
    expect(pidInContainer(process.pid)).toBe(process.pid);
  });

  it('should be undefined for a task that is gone', async () => {
    expect(pidInContainer(await gonePid())).toBeUndefined();
  });

  it.skipIf(!isRoot)('should be the innermost pid of a task in namespaces of its own', async () => {
    const inner = ['unshare', '--pid', '--fork', '--kill-child', 'sh', '-c', 'true; echo $$; read wait'];
    const { pid, said } = await started('unshare', '--pid', '--fork', '--kill-child', ...inner);
    const childOf = (parent: number) =>
      Number(readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim().split(' ')[0]);
    expect(said).toBe('1');
    expect(pidInContainer(childOf(pid))).toBe(1);
    expect(pidInContainer(childOf(childOf(pid)))).toBe(1);
    expect(pidInContainer(pid)).toBe(pid);
  });
});

describe('stoppedTasksIn', () => {
  const cgroup = useScratch();

  it('should name the stopped tasks of a cgroup and of those below it, and no others', async () => {
    // With job control, `wait` returns as soon as the job stops.
    const stop = 'set -m; sleep 1000 & kill -STOP $!; wait $!; echo $!; read wait; kill -KILL $!';
    const { pid, said } = await started('bash', '-c', stop);
    try {
      mkdirSync(cgroup.at('below'));
      writeFileSync(cgroup.at('cgroup.procs'), `${process.pid}\n${pid}\n${await gonePid()}\n`);
      writeFileSync(cgroup.at('below', 'cgroup.procs'), `${said}\n`);
      expect(stoppedTasksIn(cgroup.path)).toEqual([Number(said)]);
    } finally {
      process.kill(Number(said), 'SIGKILL');
    }
  });

  it('should find none in an empty cgroup', () => {
    writeFileSync(cgroup.at('cgroup.procs'), '');
    expect(stoppedTasksIn(cgroup.path)).toEqual([]);
  });
});
