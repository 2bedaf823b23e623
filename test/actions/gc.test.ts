import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { armFaults } from '../../src/actions/fault.ts';
import { imagesFor } from '../../src/actions/find-images.ts';
import { bytesOf, type Due, dueIn, isKey, isQuiet, type Rules, removeDue } from '../../src/actions/gc.ts';
import { clockOf, keepReserve, noteEntry, readLedger } from '../../src/actions/ledger.ts';
import { checkLife, claimLife, endLife, thisHost } from '../../src/actions/lives.ts';
import { collectGarbage } from '../../src/actions/retention.ts';
import { processStartTime } from '../../src/actions/runc-state.ts';
import type { ContainerIdentity } from '../../src/machines/vocabulary.ts';
import { hostWith } from '../support/action-host.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { imageNames } from '../support/image-names.ts';
import { elsewhere, writeKey } from '../support/key-ledger.ts';

const scratch = useScratch();
const place = () => ({ imageRoot: scratch.at('images'), key: 'job' });
const home = () => join(place().imageRoot, 'job');
const container = (id = 'job'): ContainerIdentity => ({
  id,
  root: '/nowhere',
  bundle: '/nowhere',
  ...place(),
});
const host = hostWith();
const long = 60_000;
const daySeconds = 86_400;

/** What is due after so many days without anything new. */
function due(days = 8, rules: Partial<Rules> = {}): Due | undefined {
  const now = Date.now() + days * daySeconds * 1000;
  return dueIn(host, place(), now, { keepFinishedSeconds: 7 * daySeconds, ...rules });
}
const wanted = (found: Due | undefined): Due => {
  if (!found) throw new Error('nothing is due');
  return found;
};
const summary = (found: Due | undefined) =>
  found && `${found.reason} ${found.generations.join(' ')}${found.forgets ? ' and its key' : ''}`;
/** The images that a container of the job is restored from. */
const restorable = (after: 'preempted' | 'failure' | 'always' = 'preempted') =>
  imagesFor(host, place(), after).images.map(({ generation }) => generation);

describe('dueIn', () => {
  it.each([
    ['life image 1 finished:preempted', 'finished 1 and its key'],
    ['life image 1 finished:failure', 'finished 1 and its key'],
    ['life image 1 image 2 restored 2 finished:preempted', 'finished 1 2 and its key'],
    ['life image 1 checkpointed life restored 1 finished:preempted', 'finished 1 and its key'],
    ['life image 1 finished:preempted life killed', 'finished 1 and its key'],
    // It may be resumed from what it made after it had once finished.
    ['life image 1 finished:preempted life image 2 killed', 'finished 1'],
    // Nobody says what the job's own setting was.
    ['life image 1 finished', undefined],
    ['life image 1 finished:always', undefined],
    ['life image 1 finished:sometimes', undefined],
    ['life image 1 failed:preempted', undefined],
    ['life image 1 failed:failure', undefined],
    ['life image 1 killed:preempted', undefined],
    ['life image 1 checkpointed', undefined],
    // It started from scratch beside the image, which another host may still restore.
    ['life image 1 killed life finished:preempted', undefined],
    // Somebody carries the job on, or its host is lost.
    ['life image 1', undefined],
    ['life image 1 finished:preempted life', undefined],
    ['life image 1 finished:preempted life image 2', undefined],
    // Nothing is left but the ledger.
    ['life killed', 'empty  and its key'],
  ])('of a ledger with "%s", after a week, is: %s', (words, expected) => {
    writeKey(place(), words);
    expect(summary(due())).toBe(expected);
  });

  it('waits for the grace period, by the ledger entries’ own times', () => {
    writeKey(place(), 'life image 1 finished:preempted');
    expect(due(6.9)).toBeUndefined();
    expect(due(7.1)).toMatchObject({ generations: [1], litter: [], marks: [], forgets: true });
    expect(due(0, { keepFinishedSeconds: 0 })).toMatchObject({ generations: [1] });
    expect(bytesOf(wanted(due()))).toBe('memory'.length);
  });

  it.each([
    ['life image 1 image 2 killed', 'unclaimed 1 2 and its key'],
    ['life image 1 checkpointed', 'unclaimed 1 and its key'],
    ['life image 1 finished:always', 'unclaimed 1 and its key'],
    ['life image 1 finished', 'unclaimed 1 and its key'],
    ['life image 1 finished:preempted', 'finished 1 and its key'],
    // Its host may not be lost: the ledger is what lets that job make another image.
    ['life image 1', 'unclaimed 1'],
    ['life', undefined],
  ])('of a job that nobody takes up, with "%s", is: %s', (words, expected) => {
    writeKey(place(), words);
    expect(summary(due(29, { unclaimedSeconds: 30 * daySeconds }))).toBe(
      expected?.startsWith('finished') ? expected : undefined,
    );
    expect(summary(due(31, { unclaimedSeconds: 30 * daySeconds }))).toBe(expected);
  });

  it('takes an image, or the mark beside one, for a word of the job', () => {
    writeKey(place(), 'life image 1 killed');
    const later = Date.now() / 1000 + 10 * daySeconds;
    utimesSync(join(home(), '1'), later, later);
    expect(due(31, { unclaimedSeconds: 30 * daySeconds })).toBeUndefined();
    expect(due(41, { unclaimedSeconds: 30 * daySeconds })).toBeDefined();
  });

  it('never takes a job of this host that goes on for one that nobody has taken up', () => {
    const { pid } = process;
    const record = { init_process_pid: pid, init_process_start: processStartTime(pid), cgroup_paths: {} };
    mkdirSync(scratch.at('runc', 'i'), { recursive: true });
    writeFileSync(scratch.at('runc', 'i', 'state.json'), JSON.stringify(record));
    writeKey(place(), 'life image 1', { ...elsewhere, host: thisHost(host), root: scratch.at('runc') });
    expect(due(1000, { unclaimedSeconds: daySeconds })).toBeUndefined();
    rmSync(scratch.at('runc', 'i'), { recursive: true });
    expect(summary(due(1000, { unclaimedSeconds: daySeconds }))).toBe('unclaimed 1 and its key');
  });

  it('leaves a key alone in which an image is being made, and removes what dead wrappers have left', () => {
    writeKey(place(), 'life image 2 finished:preempted');
    for (const name of ['1.removed', '3.partial/checkpoint'])
      mkdirSync(join(home(), name), { recursive: true });
    mkdirSync(join(home(), '4'));
    writeFileSync(join(home(), '2.failed.jsonl'), '{}\n');
    symlinkSync('2', join(home(), 'current'));
    const [began, wrote] = [Date.now() / 1000 - daySeconds, Date.now() / 1000 + 7 * daySeconds];
    for (const name of ['3.partial', '3.partial/checkpoint']) utimesSync(join(home(), name), began, began);
    const memory = join(home(), '3.partial/checkpoint/pages-1.img');
    writeFileSync(memory, '');
    utimesSync(memory, wrote, wrote);
    expect(due(8)).toBeUndefined();
    expect(due(10)).toMatchObject({
      generations: [2],
      litter: ['1.removed', '3.partial', '4'],
      marks: ['2.failed.jsonl', 'current'],
      forgets: true,
    });
  });

  it('keeps images that were brought without their ledger, and whatever else somebody has put there', () => {
    writeKey(place(), 'life restored 7 finished:preempted');
    mkdirSync(join(home(), '7'));
    symlinkSync('7', join(home(), 'current'));
    expect(restorable()).toEqual([7]);
    expect(due(1000, { unclaimedSeconds: daySeconds })).toBeUndefined();
    rmSync(home(), { recursive: true });

    writeKey(place(), 'life image 1 finished:preempted');
    writeFileSync(join(home(), 'notes.txt'), '');
    expect(due()).toMatchObject({ generations: [1], marks: [], forgets: false });
  });

  it('names the entry that it cannot understand, and leaves the key alone', async () => {
    writeKey(place(), 'life image 1 finished:preempted');
    writeFileSync(join(home(), 'ledger', '4'), '{"kind":"of a later Tardis"}');
    const problem = await problemOf(() => due(1000, { unclaimedSeconds: daySeconds }));
    expect(problem).toMatchObject({ code: 'ledger-unknown', message: expect.stringMatching(/^entry 4 of /) });
  });

  it('understands an entry with more in it than this Tardis knows', () => {
    writeKey(place(), 'life image 1');
    const more = { kind: 'end', at: 'now', epoch: 1, how: 'finished', resumeAfter: 'failure', later: [1] };
    writeFileSync(join(home(), 'ledger', '3'), JSON.stringify(more));
    expect(summary(due())).toBe('finished 1 and its key');
  });

  it.skipIf(!isRoot).each([
    ['image-mode', 'its directory', () => chmodSync(home(), 0o777)],
    ['image-owner', 'its ledger', () => chownSync(join(home(), 'ledger'), 1000, 1000)],
    ['image-owner', 'an image', () => chownSync(join(home(), '1'), 1000, 1000)],
    [
      'image-place',
      'a symlink in the place of an image',
      () => {
        renameSync(join(home(), '1'), scratch.at('elsewhere'));
        symlinkSync(scratch.at('elsewhere'), join(home(), '1'));
      },
    ],
  ])('refuses with %s where others may write %s', async (code, _, change) => {
    writeKey(place(), 'life image 1 finished:preempted');
    change();
    expect(await problemOf(due)).toMatchObject({ code });
  });
});

describe('isKey', () => {
  it('knows a key by its name and its ledger, and takes no symlink for either', () => {
    const root = place().imageRoot;
    writeKey(place(), 'life image 1 finished:preempted');
    mkdirSync(join(root, 'data', '1'), { recursive: true });
    mkdirSync(join(root, '.snapshot', 'ledger'), { recursive: true });
    mkdirSync(join(root, 'linked'));
    symlinkSync(join(home(), 'ledger'), join(root, 'linked', 'ledger'));
    symlinkSync(home(), join(root, 'link'));
    writeFileSync(join(root, 'file'), '');
    expect(readdirSync(root).filter((key) => isKey({ imageRoot: root, key }))).toEqual(['job']);
  });
});

describe('removeDue', () => {
  afterEach(() => armFaults(host));

  it('leaves nothing of the key, and the key can be taken up again', async () => {
    writeKey(place(), 'life image 1 image 2 checkpointed life restored 2');
    const before = claimLife(
      { ...host, config: { ...host.config, takeoverAfterSeconds: 0 } },
      container('old'),
    );
    if (!('epoch' in before)) throw new Error('it was refused');
    noteEntry(home(), { kind: 'restored', epoch: before.epoch, generation: 2 });
    endLife(container('old'), before, 'finished', 'preempted');
    writeFileSync(join(home(), '1.failed.jsonl'), '{}\n');
    symlinkSync('2', join(home(), 'current'));
    keepReserve(home());
    expect(await removeDue(host, wanted(due()), long)).toBe('removed');
    expect(existsSync(home())).toBe(false);
    // Another one that has seen it there comes too late.
    expect(await removeDue(host, asSeen(), long)).toBe('removed');
    expect(existsSync(home())).toBe(false);

    const next = claimLife(host, container('new'));
    expect(next).toMatchObject({ epoch: 1 });
    expect(() => checkLife(container('old'), before)).toThrow(/took the job up|is gone/);
    expect(checkLife(container('new'), next as { epoch: number }).last).toBe(1);
    mkdirSync(join(home(), '1'));
    noteEntry(home(), { kind: 'image', epoch: 1, generation: 1 });
    expect(restorable()).toEqual([1]);
  });

  const asSeen = (): Due => ({
    ...place(),
    reason: 'finished',
    ageSeconds: 0,
    ledger: { entries: [], unknown: 0, last: 9 },
    ...{ generations: [1], litter: [], marks: [], forgets: true },
  });

  it('does nothing where somebody has taken the job up since, on any host', async () => {
    writeKey(place(), 'life image 1 finished:preempted');
    const found = wanted(due());
    claimLife(host, container('next'));
    expect(await removeDue(host, found, long)).toBe('taken');
    expect(imageNames(home())).toEqual(['1']);
    expect(restorable('always')).toEqual([1]);
  });

  it('leaves it to the first where two look at the same time', async () => {
    writeKey(place(), 'life image 1 image 2 finished:preempted');
    const seen = [wanted(due()), wanted(due())];
    expect((await Promise.all(seen.map((each) => removeDue(host, each, long)))).sort()).toEqual([
      'removed',
      'taken',
    ]);
    expect(existsSync(home())).toBe(false);
  });

  it('does nothing to a job that has begun anew since, with numbers that look older', async () => {
    writeKey(place(), 'life image 1 life image 2 life restored 2 finished:preempted');
    const found = wanted(due());
    rmSync(home(), { recursive: true });
    writeKey(place(), 'life image 1');
    expect(await removeDue(host, found, long)).toBe('taken');
    expect(restorable()).toEqual([1]);
    expect(readLedger(home()).entries.map(({ kind }) => kind)).toEqual(['life', 'image']);
  });

  it('keeps the images and the ledger that the job may still need', async () => {
    writeKey(place(), 'life image 1 finished:preempted life image 2 killed');
    expect(await removeDue(host, wanted(due()), long)).toBe('removed');
    expect(imageNames(home())).toEqual(['2']);
    expect(restorable()).toEqual([2]);
    expect(due(16)).toBeUndefined();
  });

  it('lets a job that runs on after all, on another host, make its next image', async () => {
    const foreign = { ...host, config: { ...host.config, hostId: 'another' } };
    const life = claimLife(foreign, container()) as { epoch: number };
    mkdirSync(join(home(), '1'));
    noteEntry(home(), { kind: 'image', epoch: life.epoch, generation: 1 });
    const rules = { unclaimedSeconds: 30 * daySeconds };
    expect(await removeDue(host, wanted(due(31, rules)), long)).toBe('removed');
    expect(imageNames(home())).toEqual([]);
    expect(due(62, rules)).toBeUndefined();

    expect(checkLife(container(), life).last).toBe(3);
    mkdirSync(join(home(), '1'));
    noteEntry(home(), { kind: 'image', epoch: life.epoch, generation: 1 });
    expect(restorable()).toEqual([1]);
    await collectGarbage(container(), { ...life, generation: 1, directory: join(home(), '1') }, 2);
    expect(imageNames(home())).toEqual(['1']);
  });

  it.each(['gc.noted', 'gc.renamed', 'gc.removed'])(
    'is finished by the next one if it is killed at %s; no container is restored from what it has begun',
    async (point) => {
      writeKey(place(), 'life image 1 image 2 restored 2 finished:preempted');
      symlinkSync('2', join(home(), 'current'));
      const config = { ...host.config, faultInjection: true };
      armFaults({ config, env: { TARDIS_FAULT: `at:${point}:EIO` } });
      await expect(removeDue(host, wanted(due()), long)).rejects.toThrow('EIO');
      expect(restorable('always')).toEqual([]);
      armFaults(host);
      // At once: what is begun needs no grace. Another host leaves it an hour.
      const other = { config: { ...host.config, hostId: 'another' } };
      const rules = { keepFinishedSeconds: 7 * daySeconds };
      expect(dueIn(other, place(), Date.now() + 3_500_000, rules)).toBeUndefined();
      expect(dueIn(other, place(), Date.now() + 3_700_000, rules)).toBeDefined();
      expect(await removeDue(host, wanted(due(0)), long)).toBe('removed');
      expect(existsSync(home())).toBe(false);
    },
  );

  it.each(['gc.noted', 'gc.renamed', 'gc.removed'])(
    'leaves nothing to a job that is taken up when it was killed at %s',
    async (point) => {
      writeKey(place(), 'life image 1 image 2 restored 2 finished:preempted');
      armFaults({
        config: { ...host.config, faultInjection: true },
        env: { TARDIS_FAULT: `at:${point}:EIO` },
      });
      await expect(removeDue(host, wanted(due()), long)).rejects.toThrow('EIO');
      armFaults(host);
      const life = claimLife(host, container('next')) as { epoch: number };
      expect(restorable('always')).toEqual([]);
      expect(due(1000)).toBeUndefined();
      mkdirSync(join(home(), '3'));
      noteEntry(home(), { kind: 'image', epoch: life.epoch, generation: 3 });
      await collectGarbage(container('next'), { ...life, generation: 3, directory: join(home(), '3') }, 2);
      expect(imageNames(home())).toEqual(['3']);
      expect(restorable()).toEqual([3]);
    },
  );

  it('leaves a key alone that another process of this host is at', () => {
    writeKey(place(), 'life image 1 finished:preempted');
    const parent = { pid: process.ppid, startTime: processStartTime(process.ppid) ?? 0 };
    noteEntry(home(), { kind: 'removal', generations: [1], host: thisHost(host), remover: parent });
    expect(due(1000)).toBeUndefined();
  });

  it('does not wait longer than it is told to', async () => {
    writeKey(place(), 'life image 1 finished:preempted');
    const slow = `#!/bin/sh\n${scratch.awaiting('go')}\nexec /bin/rm "$@"\n`;
    writeFileSync(scratch.at('bin', 'rm'), slow, { mode: 0o755 });
    const slowly = { ...host, env: { PATH: `${scratch.at('bin')}${delimiter}${process.env.PATH}` } };
    expect(await removeDue(slowly, wanted(due()), 50)).toBe('going');
    expect(imageNames(home())).toEqual(['1.removed']);
    writeFileSync(scratch.at('go'), '');
    expect(await removeDue(host, wanted(due(0)), long)).toBe('removed');
    expect(existsSync(home())).toBe(false);
  });

  it('says if nothing was removed', async () => {
    writeKey(place(), 'life image 1 finished:preempted');
    writeFileSync(scratch.at('bin', 'rm'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    const failing = { ...host, env: { PATH: `${scratch.at('bin')}${delimiter}${process.env.PATH}` } };
    expect(await problemOf(() => removeDue(failing, wanted(due()), long))).toMatchObject({
      code: 'not-removed',
      message: expect.stringContaining('1.removed'),
    });
  });

  it.skipIf(!isRoot)('works on a file system without any room', async () => {
    const imageRoot = scratch.tmpfs('full', 'size=256k,mode=0700');
    const full = { imageRoot, key: 'job' };
    writeKey(full, 'life image 1 finished:preempted');
    keepReserve(join(imageRoot, 'job'));
    try {
      for (;;) writeFileSync(join(imageRoot, 'filler'), Buffer.alloc(4096), { flag: 'a' });
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' });
    }
    const now = clockOf(imageRoot) + 8 * daySeconds * 1000;
    const found = dueIn(host, full, now, { keepFinishedSeconds: 7 * daySeconds });
    expect(await removeDue(host, wanted(found), long)).toBe('removed');
    expect(readdirSync(imageRoot)).toEqual(['filler']);
  });
});

describe('clockOf', () => {
  it.skipIf(!isRoot)('tells the time of a file system without any inode left', () => {
    const directory = scratch.tmpfs('full', 'nr_inodes=3,mode=0700');
    for (const name of ['a', 'b']) writeFileSync(join(directory, name), '');
    expect(() => writeFileSync(join(directory, 'c'), '')).toThrow('ENOSPC');
    expect(Math.abs(clockOf(directory) - Date.now())).toBeLessThan(10_000);
    expect(readdirSync(directory)).toEqual(['a', 'b']);
  });
});

describe('isQuiet', () => {
  it('passes a key by that was touched lately, unless something of it is half removed', () => {
    writeKey(place(), 'life image 1 killed');
    const rules = { keepFinishedSeconds: 60 };
    expect(isQuiet(place(), Date.now(), rules)).toBe(false);
    expect(isQuiet(place(), Date.now() + 61_000, rules)).toBe(true);
    mkdirSync(join(home(), '1.removed'));
    expect(isQuiet(place(), Date.now(), rules)).toBe(true);
  });
});
