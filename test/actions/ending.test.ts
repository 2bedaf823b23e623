import { mkdirSync, writeFileSync } from 'node:fs';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  endingOf,
  forgetHeld,
  forgetMarks,
  noteHeld,
  noteKill,
  sentSignals,
  signalNumber,
} from '../../src/actions/ending.ts';
import { processStartTime } from '../../src/actions/runc-state.ts';
import type { ContainerIdentity } from '../../src/machines/vocabulary.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const container = (): ContainerIdentity => ({
  id: 'job',
  root: scratch.at('runc'),
  bundle: scratch.at('bundle', '.'),
  key: 'job',
  imageRoot: '/nowhere',
});

/** A host that says so of itself: `systemctl is-system-running`. */
const host = (state?: string) => {
  if (state) writeFileSync(scratch.at('bin', 'systemctl'), `#!/bin/sh\necho ${state}\n`, { mode: 0o755 });
  return { env: { PATH: `${scratch.at('bin')}:/usr/bin:/bin` } };
};

/** runc's record of a container whose init lives, or is gone, with what its memory cgroup counts. */
function known(isAlive: boolean, counters: Record<string, string> = {}): void {
  mkdirSync(scratch.at('runc', 'job', '.'), { recursive: true });
  mkdirSync(scratch.at('bundle', '.'), { recursive: true });
  for (const [name, text] of Object.entries(counters)) writeFileSync(scratch.at('memory', name), text);
  const record = {
    init_process_pid: process.pid,
    init_process_start: isAlive ? processStartTime(process.pid) : -1,
    cgroup_paths: { memory: scratch.at('memory') },
  };
  writeFileSync(scratch.at('runc', 'job', 'state.json'), JSON.stringify(record));
}

describe('endingOf', () => {
  it('should be by itself where the init is gone and nobody asked for it', () => {
    known(false);
    expect(endingOf(host(), container())).toBe('finished');
  });

  it('should be a kill where the job lives still, or runc was asked, until that is forgotten', () => {
    known(true);
    expect(endingOf(host(), container())).toBe('killed');
    noteKill(container(), 'KILL');
    known(false);
    expect(endingOf(host(), container())).toBe('killed');
    forgetMarks(container());
    expect(endingOf(host(), container())).toBe('finished');
  });

  it('is by itself if the signal came after the end, or if runc could not send it', () => {
    known(false);
    noteKill(container(), 'SIGKILL');
    expect(endingOf(host(), container())).toBe('finished');
    known(true);
    const takeBack = noteKill(container(), '15');
    takeBack();
    known(false);
    expect(endingOf(host(), container())).toBe('finished');
  });

  it('is by itself if the job survived the signal, or ignores it', () => {
    known(true);
    const ignored = () => {};
    process.on('SIGQUIT', ignored);
    onTestFinished(() => void process.off('SIGQUIT', ignored));
    noteKill(container(), 'QUIT');
    known(false);
    expect(endingOf(host(), container())).toBe('killed');
    const [sent] = sentSignals(container());
    const hoursAgo = { ...sent, at: Date.now() - 2 * 3_600_000 };
    writeFileSync(scratch.at('bundle', 'tardis-killed'), `${JSON.stringify(hoursAgo)}\n`);
    expect(endingOf(host(), container())).toBe('finished');
    known(true);
    // Node ignores it (node.cc, PlatformInit).
    noteKill(container(), 'PIPE');
    expect(sentSignals(container())).toHaveLength(1);
  });

  it.each([
    ['9', 9],
    ['KILL', 9],
    ['sigterm', 15],
    ['SIGQUIT', 3],
    ['RTMIN+3', 0],
  ])('signalNumber reads %s as %i', (word, number) => {
    expect(signalNumber(word)).toBe(number);
  });

  it('should be no end by itself of a restored job that was gone before its start', () => {
    known(false);
    noteHeld(container());
    expect(endingOf(host(), container())).toBe('killed');
    forgetHeld(container());
    expect(endingOf(host(), container())).toBe('finished');
  });

  it('should be no end by itself of a container that runc never knew', () => {
    expect(endingOf(host(), container())).toBe('killed');
  });

  it.each([
    ['running', 'finished'],
    ['degraded', 'finished'],
    ['stopping', 'killed'],
  ])(
    'should, on a host that is %s, be told as %s: systemd ends jobs by itself on its way down',
    (state, ending) => {
      known(false);
      expect(endingOf(host(state), container())).toBe(ending);
    },
  );

  it.each([
    ['memory.oom_control', 'oom_kill_disable 0\nunder_oom 0\noom_kill 1\n', 'failed'],
    ['memory.oom_control', 'oom_kill_disable 0\nunder_oom 0\noom_kill 0\n', 'finished'],
    ['memory.events', 'low 0\noom 3\noom_kill 2\noom_group_kill 0\n', 'failed'],
    ['memory.events', 'low 0\noom 3\noom_kill 0\n', 'finished'],
  ])('should be told by %s: %j', (name, text, ending) => {
    known(false, { [name]: text });
    expect(endingOf(host(), container())).toBe(ending);
  });
});
