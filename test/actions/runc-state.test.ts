import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { describe, expect, it } from 'vitest';
import { isInitAlive, isInitEnding, observeContainer, readRuncRecord } from '../../src/actions/runc-state.ts';
import { hostWith } from '../support/action-host.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const container = () => ({ root: scratch.at('root'), id: 'job' });
function record(given: unknown) {
  const text = typeof given === 'string' ? given : JSON.stringify(given);
  writeFileSync(scratch.at('root', 'job', 'state.json'), text);
  return readRuncRecord(container());
}
const least = { init_process_pid: 7, init_process_start: 42, cgroup_paths: {} };

describe('readRuncRecord', () => {
  it.each([
    [
      'v1',
      { freezer: '/sys/fs/cgroup/freezer/job', memory: '/m' },
      { version: 1, directory: '/sys/fs/cgroup/freezer/job' },
      '/m',
    ],
    [
      'v2',
      { '': '/sys/fs/cgroup/job' },
      { version: 2, directory: '/sys/fs/cgroup/job' },
      '/sys/fs/cgroup/job',
    ],
    ['no', { memory: '/m' }, undefined, '/m'],
  ])('should find the freezer and the memory of %s cgroup', (_, cgroup_paths, freezer, memory) => {
    const found = record({ ...least, cgroup_paths, id: 'job', config: { huge: 1 } });
    expect(found).toEqual({ pid: 7, startTime: 42, freezer, memory });
  });

  it.each([
    ['empty', ''],
    ['torn', '{"init_process_pid": 7'],
    ['without a pid', { ...least, init_process_pid: undefined }],
    ['of another kind', { ...least, cgroup_paths: null }],
  ])('should be none where it is %s', (_, given) => {
    expect(record(given)).toBeUndefined();
  });

  it('should be none where runc does not know the container', () => {
    expect(readRuncRecord(container())).toBeUndefined();
  });
});

const startOf = (pid: number): number =>
  Number(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ')[19]);
const alive = (pid: number, startTime: number): boolean =>
  isInitAlive({ pid, startTime, memory: undefined, freezer: undefined });

describe('isInitAlive', () => {
  it('should be so for a process with that start, and not for another that has its pid now', () => {
    expect(alive(process.pid, startOf(process.pid))).toBe(true);
    expect(alive(process.pid, startOf(process.pid) - 1)).toBe(false);
  });

  it('should be so whatever the process calls itself', async () => {
    writeFileSync(scratch.at('a) Z 1 (b'), '#!/bin/sh\necho up; read wait\n', { mode: 0o755 });
    const child = spawn(scratch.at('a) Z 1 (b'), { stdio: ['pipe', 'pipe', 'ignore'] });
    await once(createInterface({ input: child.stdout }), 'line');
    const pid = child.pid as number;
    expect(readFileSync(`/proc/${pid}/comm`, 'utf8')).toContain(') Z');
    const start = startOf(pid);
    expect(alive(pid, start)).toBe(true);
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(alive(pid, start)).toBe(false);
  });

  it('should not be so for a zombie', async () => {
    const child = spawn('true');
    const pid = child.pid as number;
    const stateOf = () => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.[0];
    // Node cannot reap its child before this test lets go of the event loop.
    while (stateOf() !== 'Z');
    expect(alive(pid, startOf(pid))).toBe(false);
    await once(child, 'exit');
  });
});

describe('isInitEnding', () => {
  const ending = (startTime: number): boolean =>
    isInitEnding({ pid: process.pid, startTime, memory: undefined, freezer: undefined });

  it('should be so for one that is gone, and not for one at work', () => {
    expect(ending(startOf(process.pid) - 1)).toBe(true);
    expect(ending(startOf(process.pid))).toBe(false);
  });
});

describe('observeContainer', () => {
  const observe = (script: string) => {
    writeFileSync(scratch.at('runc'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return observeContainer(hostWith({ realRunc: scratch.at('runc') }), container());
  };

  it.each(['created', 'running', 'paused', 'stopped'])('should say %s as runc does', async (status) => {
    expect(await observe(`echo '{"ociVersion": "1.2.0", "status": "${status}", "pid": 7}'`)).toBe(status);
  });

  it('should ask about this container under this root', async () => {
    const script = `[ "$*" = "--root ${scratch.at('root')} state job" ] && echo '{"status": "running"}'`;
    expect(await observe(script)).toBe('running');
  });

  it.each([
    ['fails', 'echo \'{"status": "running"}\'; exit 1'],
    ['says something else', 'echo running'],
    ['says a status that nobody knows', 'echo \'{"status": "melting"}\''],
  ])('should take a container for gone where runc %s', async (_, script) => {
    expect(await observe(script)).toBe('gone');
  });

  it.each([
    ['running', 'running', 'THAWED', []],
    ['paused', 'paused', 'FROZEN', []],
    ['created', 'waiting for its start', 'THAWED', ['exec.fifo']],
    ['stopped', 'gone', 'THAWED', []],
  ])('should say %s by its record where runc does not answer and its init is %s', async (...given) => {
    const [status, how, freezer, files] = given;
    for (const name of files) writeFileSync(scratch.at('root', 'job', name), '');
    writeFileSync(scratch.at('cgroup', 'freezer.state'), `${freezer}\n`);
    record({
      init_process_pid: process.pid,
      init_process_start: startOf(process.pid) - (how === 'gone' ? 1 : 0),
      cgroup_paths: { freezer: scratch.at('cgroup') },
    });
    expect(await observe('kill -KILL $$')).toBe(status);
  });

  it('should not mind a warning of runc among its answer', async () => {
    const warning = 'echo \'time="t" level=warning msg="cgroup v1 is deprecated"\' >&2';
    expect(await observe(`${warning}; echo '{"status": "running"}'`)).toBe('running');
  });
});
