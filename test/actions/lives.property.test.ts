import { existsSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readLedger } from '../../src/actions/ledger.ts';
import { hosts, TwoHosts } from '../support/two-hosts.ts';

const onHost = fc.constantFrom(...hosts);
const which = fc.nat({ max: 5 });
const event = fc.oneof(
  fc.record({
    type: fc.constant('create' as const),
    on: onHost,
    id: fc.constantFrom('x', 'y', 'z'),
    patience: fc.constantFrom(0, 60),
  }),
  fc.record({ type: fc.constant('end' as const), which }),
  fc.record({ type: fc.constant('checkpoint' as const), which }),
  fc.record({
    type: fc.constant('delete' as const),
    which,
    how: fc.constantFrom('killed' as const, 'finished' as const, 'failed' as const),
  }),
);

describe('lives of one job on two hosts, created, ended, checkpointed and deleted in any order', () => {
  it('never let two of them commit, and none lose its lease by another one’s delete', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(event, { maxLength: 25 }), async (events) => {
        const world = new TwoHosts();
        try {
          for (const each of events) {
            const before = world.running.filter(world.holds);
            const it =
              each.type === 'create' ? undefined : world.running[each.which % (world.running.length || 1)];
            if (each.type === 'create') world.create(each.on, each.id, each.patience);
            else if (!it) continue;
            else if (each.type === 'end') world.end(it);
            else if (each.type === 'delete') await world.delete(it, each.how);
            else await world.checkpoint(it);

            const holders = world.running.filter(world.holds);
            expect(holders.length).toBeLessThanOrEqual(1);
            if (each.type !== 'create')
              for (const holder of before) if (holder !== it) expect(holders).toContain(holder);
            if (world.images > 0) {
              // The newest image is there, and the ledger knows it.
              const images = readLedger(world.home).entries.flatMap((entry) =>
                entry.kind === 'image' ? [entry.generation] : [],
              );
              expect(existsSync(join(world.home, String(images.at(-1))))).toBe(true);
            }
            expect(readLedger(world.home).entries.length).toBeLessThan(15);
          }
          for (const it of [...world.running]) await world.delete(it, 'killed');
          if (world.images === 0) expect(existsSync(world.home)).toBe(false);
        } finally {
          world.remove();
        }
      }),
      { numRuns: 150 },
    );
  }, 120_000);
});
