import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { slotsFor, takeSlot } from '../../src/actions/dump-slots.ts';
import { hostWith } from '../support/action-host.ts';
import { OtherWrapper } from '../support/action-lock.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();

/** A host whose run directory is the scratch's, and what it logs. */
function hostHere(settings: Partial<ReturnType<typeof hostWith>['config']> = {}) {
  const logged: { level: number; msg: string; reason?: string; waitedMs?: number }[] = [];
  const log = pino({ base: null }, { write: (line: string) => void logged.push(JSON.parse(line)) });
  const config = { ...hostWith().config, runDir: scratch.at('run'), maxDumps: 1, ...settings };
  return { host: hostWith({ config, log }), logged };
}
const warning = 40;

describe('slotsFor', () => {
  it('should be what the host has set, apart for dumps and restores', () => {
    const { config } = hostHere({ maxDumps: 3, maxRestores: 5 }).host;
    expect([slotsFor('dumps', config), slotsFor('restores', config)]).toEqual([3, 5]);
  });

  it('should be one at least, and twice the cores at most, where nothing is set', () => {
    const slots = slotsFor('restores', hostHere().host.config);
    expect(slots).toBeGreaterThanOrEqual(1);
    expect(slots).toBeLessThanOrEqual(availableParallelism() * 2);
  });
});

describe('takeSlot', () => {
  it('should count dumps and restores apart', async () => {
    const { host, logged } = hostHere({ maxRestores: 1 });
    const slots = [await takeSlot(host, 'dumps'), await takeSlot(host, 'restores')];
    expect(logged.map(({ msg }) => msg)).toEqual([
      'has one of the 1 slots for dumps',
      'has one of the 1 slots for restores',
    ]);
    for (const slot of slots) slot.release();
  });

  it('should give a slot back once, and keep no file open', async () => {
    const { host, logged } = hostHere();
    const open = readdirSync('/proc/self/fd').length;
    const first = await takeSlot(host, 'dumps');
    first.release();
    const second = await takeSlot(host, 'dumps');
    // The first one's descriptor may be another file's by now.
    first.release();
    second.release();
    expect(logged.filter(({ level }) => level >= warning)).toEqual([]);
    expect(readdirSync('/proc/self/fd')).toHaveLength(open);
  });

  it('should go on without a slot, and say so, where none comes free for as long as a lock is waited for', async () => {
    const { host, logged } = hostHere({ maxDumps: 2, lockTimeoutSeconds: 0.05 });
    const slots = [await takeSlot(host, 'dumps'), await takeSlot(host, 'dumps')];
    slots.push(await takeSlot(host, 'dumps'));
    expect(logged.at(-1)).toMatchObject({
      level: warning,
      msg: 'none of the 2 slots for dumps came free: goes on without',
    });
    for (const slot of slots) slot.release();
  });

  it.each([
    ['the run directory cannot be written', () => writeFileSync(scratch.at('run'), ''), /ENOTDIR/],
    ['the queue is no file', () => mkdirSync(scratch.at('run', 'slots', 'dumps', 'queue')), /EISDIR/],
    ['a slot is no file', () => mkdirSync(scratch.at('run', 'slots', 'dumps', '0')), /EISDIR/],
  ])('should go on without a slot, and say why, where %s', async (_, spoil, reason) => {
    spoil();
    const { host, logged } = hostHere();
    (await takeSlot(host, 'dumps')).release();
    expect(logged).toMatchObject([{ level: warning, reason: expect.stringMatching(reason) }]);
  });

  it('should go on without a slot where there is no flock', async () => {
    const path = process.env.PATH;
    process.env.PATH = scratch.path;
    try {
      const { host, logged } = hostHere();
      (await takeSlot(host, 'dumps')).release();
      expect(logged).toMatchObject([
        { level: warning, reason: expect.stringMatching(/cannot lock .*ENOENT/) },
      ]);
    } finally {
      process.env.PATH = path;
    }
  });

  it("should be for root's eyes only", async () => {
    (await takeSlot(hostHere().host, 'dumps')).release();
    expect(statSync(scratch.at('run', 'slots', 'dumps', '0')).mode & 0o777).toBe(0o600);
    expect(statSync(scratch.at('run', 'slots')).mode & 0o777).toBe(0o700);
  });
});

describe('slots between processes', () => {
  let others: OtherWrapper[] = [];
  const another = (count = 1): OtherWrapper => {
    const home = scratch.at(`other-${others.length}`);
    mkdirSync(home);
    const other = new OtherWrapper(home, 'slot', [scratch.at('run'), String(count)]);
    others.push(other);
    return other;
  };
  /** One that has the slot. With one slot to be had, it asks for the queue, and then for the slot. */
  const holding = async (): Promise<OtherWrapper> => {
    const holder = another();
    holder.order('take');
    expect(await holder.answer()).toBe('take');
    return holder;
  };
  /** One that is the first in the queue: it has tried the slot, and waits for it. */
  const first = async (): Promise<OtherWrapper> => {
    const waiter = another();
    waiter.order('take');
    await waiter.asks(3);
    return waiter;
  };
  /** One that stands in the queue behind it. */
  const second = async (): Promise<OtherWrapper> => {
    const waiter = another();
    waiter.order('take');
    await waiter.asks(1);
    return waiter;
  };
  beforeEach(() => {
    others = [];
  });
  afterEach(() => Promise.all(others.map((other) => other.kill())));

  it('should be had by all that come while there are some', async () => {
    const all = [another(3), another(3), another(3)];
    for (const other of all) other.order('take');
    expect(await Promise.all(all.map((other) => other.answer()))).toEqual(['take', 'take', 'take']);
  });

  it('should be had in turn', async () => {
    const holder = await holding();
    const [next, last] = [await first(), await second()];
    holder.order('release');
    expect(await next.answer()).toBe('take');
    next.order('release');
    expect(await next.answer()).toBe('release');
    expect(await last.answer()).toBe('take');
  });

  it('should be had by a waiter whose predecessor is killed', async () => {
    const holder = await holding();
    const waiter = await first();
    await holder.kill();
    expect(await waiter.answer()).toBe('take');
  });

  it('should be had by the next one where the first in the queue is killed', async () => {
    const holder = await holding();
    const [killed, next] = [await first(), await second()];
    await killed.kill();
    await next.asks(2);
    holder.order('release');
    expect(await next.answer()).toBe('take');
  });

  it('should be had by the last one where one in the middle of the queue is killed', async () => {
    const holder = await holding();
    const [next, killed, last] = [await first(), await second(), await second()];
    await killed.kill();
    holder.order('release');
    expect(await next.answer()).toBe('take');
    await next.kill();
    expect(await last.answer()).toBe('take');
  });

  it('should be had by no more than there are', async () => {
    const all = Array.from({ length: 5 }, () => another(2));
    for (const other of all) other.order('crowd', scratch.at('crowd'));
    const most = await Promise.all(all.map((other) => other.answer()));
    expect(Math.max(...most.map(Number))).toBeLessThanOrEqual(2);
  });
});
