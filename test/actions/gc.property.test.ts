import { existsSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { ResumeAfter } from '../../src/actions/container-config.ts';
import { armFaults } from '../../src/actions/fault.ts';
import { imagesFor } from '../../src/actions/find-images.ts';
import { dueIn, isKey, removeDue } from '../../src/actions/gc.ts';
import { noteEntry } from '../../src/actions/ledger.ts';
import { hostWith } from '../support/action-host.ts';
import { type HostName, hosts, TwoHosts } from '../support/two-hosts.ts';

const onHost = fc.constantFrom(...hosts);
const which = fc.nat({ max: 5 });
const create = fc.record({
  type: fc.constant('create' as const),
  on: onHost,
  id: fc.constantFrom('x', 'y', 'z'),
  patience: fc.constantFrom(0, 60),
});
const lifeEvent = fc.oneof(
  { weight: 3, arbitrary: create },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('end' as const), which }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('checkpoint' as const), which }) },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('delete' as const),
      which,
      how: fc.constantFrom('killed' as const, 'finished' as const, 'finished' as const, 'failed' as const),
    }),
  },
);
const collect = fc.record({
  type: fc.constant('collect' as const),
  on: onHost,
  /** What happens after gc has looked, and before it removes. */
  between: fc.array(lifeEvent, { maxLength: 2 }),
  /** Where it is killed. */
  fault: fc.constantFrom(undefined, 'gc.noted', 'gc.renamed', 'gc.removed'),
  unclaimed: fc.constantFrom(false, false, true),
});
type LifeEvent = typeof lifeEvent extends fc.Arbitrary<infer Value> ? Value : never;
type Collect = typeof collect extends fc.Arbitrary<infer Value> ? Value : never;

class World extends TwoHosts {
  readonly #resumeAfter: ResumeAfter;

  constructor(resumeAfter: ResumeAfter) {
    super(resumeAfter);
    this.#resumeAfter = resumeAfter;
  }

  /** The images that a container would be restored from now, on each host; they are whole. */
  restorable(): number[][] {
    return hosts.map((on) => {
      const { images } = imagesFor(this.host(on), this.place, this.#resumeAfter);
      return images.map(({ generation, directory }) => {
        expect(existsSync(join(directory, 'memory'))).toBe(true);
        return generation;
      });
    });
  }

  async happen(each: LifeEvent): Promise<void> {
    if (each.type === 'create') {
      const it = this.create(each.on, each.id, each.patience);
      const [newest] = imagesFor(this.host(each.on), this.place, this.#resumeAfter).images;
      if (!it || !newest || !('epoch' in it.life)) return;
      const { epoch } = it.life;
      noteEntry(this.home, { kind: 'attempt', epoch, generation: newest.generation });
      noteEntry(this.home, { kind: 'restored', epoch, generation: newest.generation });
      return;
    }
    const it = this.running[each.which % (this.running.length || 1)];
    if (!it) return;
    if (each.type === 'end') this.end(it);
    else if (each.type === 'delete') await this.delete(it, each.how);
    else await this.checkpoint(it);
  }

  /** Looks, lets others do something, and removes what it has seen. */
  async collect({ on, between, fault, unclaimed }: Collect): Promise<void> {
    const found = isKey(this.place) ? this.due(on, unclaimed) : undefined;
    for (const each of between) await this.happen(each);
    if (!found) return;
    const before = this.restorable();
    const holders = this.running.filter((it) => it.alive && this.holds(it));
    if (fault)
      armFaults({
        config: { ...hostWith().config, faultInjection: true },
        env: { TARDIS_FAULT: `at:${fault}:EIO` },
      });
    await removeDue(this.host(on), found, 60_000).catch((error) => {
      if (!fault) throw error;
    });
    armFaults(hostWith());

    // Whoever carries the job on can make its next image.
    for (const it of holders) expect(this.holds(it)).toBe(true);
    if (!unclaimed || holders.some((it) => it.on === on)) expect(this.restorable()).toEqual(before);
  }

  due(on: HostName, unclaimed: boolean) {
    const rules = { keepFinishedSeconds: 0, unclaimedSeconds: unclaimed ? 86_400 : undefined };
    // Later than all that has been made, and no removal of the other host is under way still.
    return dueIn(this.host(on), this.place, Date.now() + 100 * 86_400_000, rules);
  }
}

afterEach(() => armFaults(hostWith()));

describe('gc at any moment among lives of one job on two hosts', () => {
  it('removes no image that a container of the job could be restored from, and takes the job from nobody', async () => {
    const event = fc.oneof({ weight: 2, arbitrary: lifeEvent }, { weight: 1, arbitrary: collect });
    const settings = fc.constantFrom('preempted' as const, 'failure' as const, 'always' as const);
    const events = fc.array(event, { minLength: 5, maxLength: 25, size: 'max' });
    let removals = 0;
    await fc.assert(
      fc.asyncProperty(settings, events, async (resumeAfter, sequence) => {
        const world = new World(resumeAfter);
        try {
          for (const each of sequence) {
            if (each.type === 'collect') await world.collect(each);
            else await world.happen(each);
          }
          // When all is over, nothing is left of a job that is finished, whatever was cut short before.
          for (const it of [...world.running]) await world.delete(it, 'killed');
          const isOver = resumeAfter !== 'always' && world.restorable().every(({ length }) => length === 0);
          const found = isKey(world.place) ? world.due('a', true) : undefined;
          if (found) removals += 1;
          if (found) await removeDue(world.host('a'), found, 60_000);
          if (isOver) expect(existsSync(world.home)).toBe(false);
        } finally {
          world.remove();
        }
      }),
      { numRuns: 60 },
    );
    expect(removals).toBeGreaterThan(10);
  }, 120_000);
});
