import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  awaitFrozen,
  beginFreeze,
  freezerOf,
  isFrozen,
  processesIn,
  thaw,
} from '../../src/actions/freezer.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const cgroup = useScratch();
const write = (name: string, text: string): void => writeFileSync(cgroup.at(name), text);
const read = (name: string): string => readFileSync(cgroup.at(name), 'utf8');
const v1 = () => ({ version: 1, directory: cgroup.path }) as const;
const v2 = () => ({ version: 2, directory: cgroup.path }) as const;

describe('freezerOf', () => {
  it('should be that of the record, and a Problem where there is none', async () => {
    expect(freezerOf({ pid: 1, startTime: 2, memory: undefined, freezer: v2() })).toEqual(v2());
    expect((await problemOf(() => freezerOf(undefined))).code).toBe('freezer');
    expect(
      (await problemOf(() => freezerOf({ pid: 1, startTime: 2, memory: undefined, freezer: undefined })))
        .code,
    ).toBe('freezer');
  });
});

describe('a v1 freezer', () => {
  it.each([
    ['THAWED\n', false],
    ['FREEZING\n', true],
    ['FROZEN\n', true],
  ])('should be frozen, or on its way there, where it says %j: %s', (state, answer) => {
    write('freezer.state', state);
    expect(isFrozen(v1())).toBe(answer);
  });

  it('should be ordered by its state', () => {
    beginFreeze(v1());
    expect(read('freezer.state')).toBe('FROZEN');
    thaw(v1());
    expect(read('freezer.state')).toBe('THAWED');
  });

  it('should be ordered again for as long as it is only on its way', async () => {
    write('freezer.state', 'FREEZING\n');
    // A plain file keeps what is written: the second look finds the order itself.
    await awaitFrozen(v1());
    expect(read('freezer.state')).toBe('FROZEN');
  });
});

describe('a v2 freezer', () => {
  it('should be ordered by a digit', () => {
    beginFreeze(v2());
    expect([read('cgroup.freeze'), isFrozen(v2())]).toEqual(['1', true]);
    thaw(v2());
    expect([read('cgroup.freeze'), isFrozen(v2())]).toEqual(['0', false]);
  });

  it('should be awaited until the kernel says that it is frozen', async () => {
    write('cgroup.events', 'populated 1\nfrozen 0\n');
    const frozen = awaitFrozen(v2());
    expect(read('cgroup.freeze')).toBe('1');
    write('cgroup.events', 'populated 1\nfrozen 1\n');
    await frozen;
  });
});

describe('processesIn', () => {
  it('should name the processes of a cgroup and of all below it', () => {
    write('cgroup.procs', '12\n7\n');
    write('a/cgroup.procs', '');
    write('a/b/cgroup.procs', '300\n');
    write('tasks', '99\n');
    expect(processesIn(cgroup.path)).toEqual([12, 7, 300]);
  });

  it('should fail for a cgroup that is gone', () => {
    expect(() => processesIn(cgroup.at('gone'))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });
});
