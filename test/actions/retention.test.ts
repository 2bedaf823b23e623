import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noteEntry, readLedger } from '../../src/actions/ledger.ts';
import { claimLife, endLife, thisHost } from '../../src/actions/lives.ts';
import { collectGarbage, forgetJob, giveUpLife } from '../../src/actions/retention.ts';
import { processStartTime } from '../../src/actions/runc-state.ts';
import type { ContainerIdentity } from '../../src/machines/vocabulary.ts';
import { hostWith } from '../support/action-host.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { imageNames } from '../support/image-names.ts';

const scratch = useScratch();
const job = (id = 'job'): ContainerIdentity => ({
  id,
  root: '/nowhere',
  bundle: '/nowhere',
  key: 'job',
  imageRoot: scratch.at('images'),
});
const home = () => join(job().imageRoot, 'job');

/** A job that has taken itself up and made images of these generations; the last is just committed. */
function made(...generations: number[]): { generation: number; directory: string; epoch: number } {
  const life = claimLife(hostWith(), job());
  const epoch = 'epoch' in life ? life.epoch : 0;
  for (const generation of generations) {
    mkdirSync(join(home(), String(generation), 'checkpoint'), { recursive: true });
    noteEntry(home(), { kind: 'image', epoch, generation });
  }
  const generation = generations.at(-1) ?? 0;
  return { generation, directory: join(home(), String(generation)), epoch };
}

describe('collectGarbage', () => {
  it.each([
    [1, ['4']],
    [2, ['3', '4']],
    [3, ['2', '3', '4']],
    [9, ['1', '2', '3', '4']],
  ])('should keep the newest images: %i', async (keep, left) => {
    await collectGarbage(job(), made(1, 2, 3, 4), keep);
    expect(imageNames(home())).toEqual(left);
  });

  it('should remove what dead wrappers left, but nothing that is newer', async () => {
    const image = made(2, 4);
    for (const name of ['1.partial', '3.removed', '3.partial', '5.partial']) mkdirSync(join(home(), name));
    mkdirSync(join(home(), '1'));
    await collectGarbage(job(), image, 2);
    expect(imageNames(home())).toEqual(['2', '4', '5.partial']);
  });

  it('should keep an image that was refused somewhere, for whoever can use it', async () => {
    const image = made(1, 2, 3);
    writeFileSync(join(home(), '1.failed.jsonl'), '{}\n');
    expect(await collectGarbage(job(), image, 1)).toEqual([2]);
    expect(imageNames(home())).toEqual(['1', '1.failed.jsonl', '3']);
    expect(readLedger(home()).entries).toContainEqual(expect.objectContaining({ generation: 1 }));
  });

  it('should forget what the ledger says of images that are gone', async () => {
    await collectGarbage(job(), made(1, 2, 3), 1);
    const kinds = readLedger(home()).entries.map(({ kind, number }) => [kind, number]);
    expect(kinds[0]).toEqual(['life', 1]);
    const next = claimLife(hostWith(), job('next'));
    const epoch = 'epoch' in next ? next.epoch : 0;
    mkdirSync(join(home(), '4'));
    noteEntry(home(), { kind: 'image', epoch, generation: 4 });
    await collectGarbage(job('next'), { generation: 4, directory: join(home(), '4'), epoch }, 1);
    expect(readLedger(home()).entries.map(({ kind }) => kind)).toEqual(['life', 'image']);
  });

  it('should remove nothing for a container that another one has superseded', async () => {
    const image = made(1, 2);
    noteEntry(home(), {
      kind: 'life',
      claimant: { host: 'b', root: '/r', id: 'other', wrapper: { pid: 1, startTime: 1 } },
    });
    expect((await problemOf(() => collectGarbage(job(), image, 1))).code).toBe('life-superseded');
    expect(imageNames(home())).toEqual(['1', '2']);
  });
});

describe('giveUpLife', () => {
  const hostKeeping = (keepFinishedSeconds: number) => {
    const { config, ...host } = hostWith();
    return {
      ...host,
      config: { ...config, keepFinishedSeconds, checkpointRoot: job().imageRoot, runDir: scratch.at('run') },
    };
  };

  it.each([
    ['finished', 'preempted', 0, false],
    ['finished', 'failure', 0, false],
    ['finished', 'always', 0, true],
    ['finished', undefined, 0, true],
    ['finished', 'preempted', 1, true],
    ['failed', 'preempted', 0, true],
    ['killed', 'preempted', 0, true],
  ] as const)(
    'of a job that has %s and is resumed after %s, with keepFinishedSeconds %i: its images stay: %j',
    async (how, resumeAfter, keepFinishedSeconds, stay) => {
      const { epoch } = made(1, 2);
      await giveUpLife(hostKeeping(keepFinishedSeconds), job(), { epoch }, how, resumeAfter);
      expect(existsSync(home())).toBe(stay);
      if (!stay) return;
      expect(imageNames(home())).toEqual(['1', '2']);
      expect(readLedger(home()).entries.at(-1)).toMatchObject({ kind: 'end', how });
    },
  );

  it('removes nothing of a job that another container has taken up', async () => {
    const { epoch } = made(1);
    noteEntry(home(), {
      kind: 'life',
      claimant: { host: 'b', root: '/r', id: 'next', wrapper: { pid: 1, startTime: 1 } },
    });
    await giveUpLife(hostKeeping(0), job(), { epoch }, 'finished', 'preempted');
    expect(imageNames(home())).toEqual(['1']);
  });
});

describe('forgetJob', () => {
  it('should remove the directory of a job without images, and of no other', () => {
    made();
    endLife(job(), { epoch: 1 }, 'killed');
    forgetJob(hostWith(), job(), { epoch: 1 });
    expect(existsSync(home())).toBe(false);
    made(1);
    endLife(job(), { epoch: 1 }, 'killed');
    forgetJob(hostWith(), job(), { epoch: 1 });
    expect(readdirSync(home()).sort()).toEqual(['1', 'ledger']);
    expect(readLedger(home()).last).toBe(3);
  });

  it("should remove a dead wrapper's draft, and leave one that may be about to be linked", () => {
    made();
    endLife(job(), { epoch: 1 }, 'killed');
    const draft = join(home(), 'ledger', 'draft.1.abc');
    writeFileSync(draft, '{}');
    forgetJob(hostWith(), job(), { epoch: 1 });
    expect(existsSync(draft)).toBe(true);
    const hourAgo = Date.now() / 1000 - 3600;
    utimesSync(draft, hourAgo, hourAgo);
    forgetJob(hostWith(), job(), { epoch: 1 });
    expect(existsSync(home())).toBe(false);
  });

  it('leaves the ledger alone that a successor has begun, or that its own life has not ended', () => {
    made();
    forgetJob(hostWith(), job(), { epoch: 1 });
    expect(readLedger(home()).last).toBe(1);
    noteEntry(home(), {
      kind: 'life',
      claimant: { host: 'b', root: '/r', id: 'next', wrapper: { pid: 1, startTime: 1 } },
    });
    noteEntry(home(), { kind: 'end', epoch: 1, how: 'killed' });
    forgetJob(hostWith(), job(), { epoch: 1 });
    expect(readLedger(home()).entries.map(({ kind }) => kind)).toEqual(['life', 'life', 'end']);
  });

  it.each([
    ['a process of this host', thisHost(hostWith()), process.ppid],
    ['another host', 'b', 1],
  ])('leaves a ledger alone that %s is removing', (_, host, pid) => {
    made();
    endLife(job(), { epoch: 1 }, 'killed');
    const remover = { pid, startTime: processStartTime(pid) ?? 0 };
    noteEntry(home(), { kind: 'removal', generations: [], host, remover });
    forgetJob(hostWith(), job(), { epoch: 1 });
    expect(readLedger(home()).entries.map(({ kind }) => kind)).toEqual(['life', 'end', 'removal']);
  });

  it('should do nothing where there is nothing', () => {
    forgetJob(hostWith(), job(), { epoch: 1 });
    expect(existsSync(home())).toBe(false);
  });
});
