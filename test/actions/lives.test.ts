import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, it, onTestFinished } from 'vitest';
import { appendEntry, type NewEntry, readLedger } from '../../src/actions/ledger.ts';
import { checkLife, claimLife, endLife } from '../../src/actions/lives.ts';
import { processStartTime } from '../../src/actions/runc-state.ts';
import type { ContainerIdentity } from '../../src/machines/vocabulary.ts';
import { hostWith } from '../support/action-host.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { fixturesDir } from '../support/paths.ts';

const scratch = useScratch();
const home = () => scratch.at('images', 'job-key');
const container = (id = 'job'): ContainerIdentity => ({
  id,
  root: scratch.at('runc'),
  bundle: '/nowhere',
  key: 'job-key',
  imageRoot: scratch.at('images'),
});
const hostNamed = (hostId: string, takeoverAfterSeconds = 60) => {
  const host = hostWith();
  return { ...host, config: { ...host.config, hostId, takeoverAfterSeconds } };
};

/** Another container's claim, by a wrapper that is gone. */
function claimed(host: string, id: string, wrapper = { pid: 1, startTime: -1 }): number {
  const claimant = { host, root: scratch.at('runc'), id, wrapper };
  return appendEntry(home(), readLedger(home()).last, { kind: 'life', claimant }) ?? 0;
}

/** runc's record of a container whose init is this process. */
function alive(id: string): void {
  mkdirSync(scratch.at('runc', id), { recursive: true });
  const record = {
    init_process_pid: process.pid,
    init_process_start: processStartTime(process.pid),
    cgroup_paths: {},
  };
  writeFileSync(scratch.at('runc', id, 'state.json'), JSON.stringify(record));
}

/** Makes a life older than it is. */
function age(number: number, seconds: number): void {
  const then = Date.now() / 1000 - seconds;
  utimesSync(join(home(), 'ledger', String(number)), then, then);
}

describe('claimLife', () => {
  it('should give the first container of a job its first epoch, for root alone to see', () => {
    expect(claimLife(hostNamed('a'), container())).toMatchObject({ epoch: 1 });
    expect(readdirSync(join(home(), 'ledger'))).toEqual(['1']);
  });

  it('should give way to a container on this host that lives, and take over from one that is gone', () => {
    claimed('a', 'other');
    alive('other');
    expect(claimLife(hostNamed('a'), container())).toEqual({
      refused: expect.stringMatching(/^container other on this host carries the job on, in epoch 1/),
    });
    rmSync(scratch.at('runc', 'other'), { recursive: true });
    expect(claimLife(hostNamed('a'), container())).toMatchObject({ epoch: 2 });
  });

  it('should give way to a wrapper on this host that is making its container still', () => {
    const parent = process.ppid;
    claimed('a', 'other', { pid: parent, startTime: processStartTime(parent) ?? 0 });
    expect(claimLife(hostNamed('a'), container())).toHaveProperty('refused');
  });

  it('should take a container for itself that has claimed its life before', () => {
    claimed('a', 'job');
    alive('job');
    expect(claimLife(hostNamed('a'), container())).toMatchObject({ epoch: 1 });
  });

  it('should give way to another host for a while, and then take it for lost', () => {
    const other = claimed('b', 'other');
    const refused = claimLife(hostNamed('a'), container());
    expect(refused).toEqual({ refused: expect.stringMatching(/another host \(b\).*60 s/) });
    age(other, 59);
    expect(claimLife(hostNamed('a'), container())).toHaveProperty('refused');
    age(other, 61);
    expect(claimLife(hostNamed('a'), container())).toMatchObject({ epoch: 2 });
  });

  /** A host on which something happens as soon as a ledger was read, once. */
  const interrupted = (happens: () => void) => {
    const host = hostNamed('a');
    let asked = 0;
    const get = () => {
      asked += 1;
      if (asked === 1) happens();
      return 'a';
    };
    return { ...host, config: Object.defineProperty({ ...host.config }, 'hostId', { get }) };
  };

  it('looks again if the life that it looks at is removed meanwhile', () => {
    claimed('b', 'other');
    const host = interrupted(() => rmSync(home(), { recursive: true }));
    expect(claimLife(host, container())).toMatchObject({ epoch: 1 });
  });

  it.each([
    ['an older ledger, which is removed', 4],
    ['a new ledger', 0],
  ])('gives way to a life that begins meanwhile after the entries of %s', (_, after) => {
    const claimant = { host: 'b', root: '/r', id: 'other', wrapper: { pid: 1, startTime: -1 } };
    const host = interrupted(() => void appendEntry(home(), after, { kind: 'life', claimant }));
    expect(claimLife(host, container())).toEqual({
      refused: expect.stringMatching(/^container other on another host/),
    });
    expect(readLedger(home()).entries.map(({ number }) => number)).toEqual([after + 1]);
  });

  it('should not wait for another host whose life has ended', () => {
    const epoch = claimLife(hostNamed('b'), container('other'));
    expect(epoch).toMatchObject({ epoch: 1 });
    endLife(container('other'), { epoch: 1 }, 'killed');
    endLife(container('other'), { epoch: 1 }, 'finished');
    expect(readLedger(home()).entries.map(({ kind }) => kind)).toEqual(['life', 'end']);
    expect(claimLife(hostNamed('a'), container())).toMatchObject({ epoch: 3 });
  });
});

describe('checkLife', () => {
  it('should let the container pass that holds the job, and no other', async () => {
    claimLife(hostNamed('a'), container());
    expect(checkLife(container(), { epoch: 1 }).last).toBe(1);
    claimLife(hostNamed('b', 0), container('other'));
    const { code, message } = await problemOf(() => checkLife(container(), { epoch: 1 }));
    expect(code).toBe('life-superseded');
    expect(message).toContain('epoch 1, but container other on host b took the job up in epoch 2');
    expect(checkLife(container('other'), { epoch: 2 }).last).toBe(2);
  });

  it('should not take another container of the same epoch for this one', async () => {
    claimLife(hostNamed('a'), container('other'));
    expect((await problemOf(() => checkLife(container(), { epoch: 1 }))).code).toBe('life-superseded');
    rmSync(home(), { recursive: true });
    expect((await problemOf(() => checkLife(container(), { epoch: 1 }))).message).toContain(
      'ledger of its key is gone',
    );
  });
});

describe('the ledger', () => {
  const image = (generation: number): NewEntry => ({ kind: 'image', epoch: 1, generation });

  it('should take one entry after another, and none that comes second', () => {
    expect(appendEntry(home(), 0, image(1), { durable: true })).toBe(1);
    expect(appendEntry(home(), 0, image(2))).toBeUndefined();
    expect(appendEntry(home(), 1, image(3))).toBe(2);
    expect(readLedger(home())).toMatchObject({ last: 2, entries: [{ generation: 1 }, { generation: 3 }] });
    expect(readdirSync(join(home(), 'ledger')).sort()).toEqual(['1', '2']);
  });

  it('should count an entry that it cannot understand, and say nothing of it', () => {
    appendEntry(home(), 0, image(1));
    writeFileSync(join(home(), 'ledger', '7'), '{"kind":"of a later Tardis"}');
    expect(readLedger(home())).toMatchObject({ last: 7, entries: [{ number: 1 }] });
    expect(appendEntry(home(), 7, image(2))).toBe(8);
  });
});

describe('fifty creates of one job on two hosts', () => {
  it('should have one winner, a hundred times', { timeout: 300_000 }, async () => {
    const imageRoot = scratch.at('images');
    const claimants = Array.from({ length: 50 }, (_, i) => {
      const words = [join(fixturesDir, 'claimant.ts'), imageRoot, `host-${i % 2}`, `container-${i}`];
      const child = spawn(process.execPath, words, { stdio: ['pipe', 'pipe', 'inherit'] });
      onTestFinished(() => {
        child.kill('SIGKILL');
      });
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      return { child, answer: async () => JSON.parse((await lines.next()).value ?? 'null') as object };
    });
    for (let round = 1; round <= 100; round++) {
      for (const { child } of claimants) child.stdin.write(`round-${round}\n`);
      const answers = await Promise.all(claimants.map(({ answer }) => answer()));
      const winners = answers.filter((answer) => 'epoch' in answer);
      expect(winners).toEqual([{ epoch: 1, claim: expect.any(String) }]);
      expect(answers.filter((answer) => 'refused' in answer)).toHaveLength(49);
      expect(readdirSync(join(imageRoot, `round-${round}`, 'ledger'))).toEqual(['1']);
    }
    for (const { child } of claimants) child.stdin.end();
    await Promise.all(claimants.map(({ child }) => child.exitCode ?? once(child, 'exit')));
  });
});
