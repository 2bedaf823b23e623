import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { commit, openPartial, partialOf } from '../../src/actions/image-store.ts';
import { keyDirectory, readLedger } from '../../src/actions/ledger.ts';
import { type Claim, checkLife, claimLife } from '../../src/actions/lives.ts';
import { collectGarbage, giveUpLife } from '../../src/actions/retention.ts';
import { processStartTime } from '../../src/actions/runc-state.ts';
import type { ContainerIdentity, Life } from '../../src/machines/vocabulary.ts';
import { hostWith } from '../support/action-host.ts';

const hosts = ['a', 'b'] as const;
type HostName = (typeof hosts)[number];

/** One container that was created and not yet deleted, on one of two hosts that share the images. */
interface Running {
  readonly container: ContainerIdentity;
  readonly on: HostName;
  readonly life: Life;
  alive: boolean;
}

/** Two hosts with one place for images, and the containers of one job on them, all with the real ledger. */
class Hosts {
  readonly #dir = mkdtempSync(join(tmpdir(), 'tardis-lives-'));
  readonly running: Running[] = [];
  images = 0;

  readonly #host = (name: HostName, takeoverAfterSeconds: number) => {
    const host = hostWith();
    const runDir = join(this.#dir, `run-${name}`);
    return { ...host, config: { ...host.config, hostId: name, takeoverAfterSeconds, runDir } };
  };

  get home(): string {
    return keyDirectory({ imageRoot: join(this.#dir, 'images'), key: 'job' });
  }

  /** The same id may be used on both hosts, and again once its container is deleted. */
  create(on: HostName, id: string, patience: number): void {
    if (this.running.some((other) => other.on === on && other.container.id === id)) return;
    const root = join(this.#dir, `runc-${on}`);
    const imageRoot = join(this.#dir, 'images');
    const container = { id, root, bundle: this.#dir, key: 'job', imageRoot };
    const life = claimLife(this.#host(on, patience), container);
    this.running.push({ container, on, life, alive: true });
    mkdirSync(join(root, id), { recursive: true });
    const record = {
      init_process_pid: process.pid,
      init_process_start: processStartTime(process.pid),
      cgroup_paths: {},
    };
    writeFileSync(join(root, id, 'state.json'), JSON.stringify(record));
  }

  end({ container }: Running): void {
    rmSync(join(container.root, container.id), { recursive: true, force: true });
  }

  async delete(it: Running, how: 'killed' | 'finished' | 'failed'): Promise<void> {
    this.end(it);
    this.running.splice(this.running.indexOf(it), 1);
    const { life } = it;
    if ('epoch' in life) await giveUpLife(this.#host(it.on, 60), it.container, life, how);
  }

  async checkpoint({ container, life }: Running): Promise<void> {
    if (!('epoch' in life)) return;
    const image = { ...openPartial(container), ...life };
    writeFileSync(join(partialOf(image), 'memory'), 'memory');
    await commit(container, image).then(
      async () => {
        this.images += 1;
        await collectGarbage(container, image, 2);
      },
      () => rmSync(partialOf(image), { recursive: true }),
    );
  }

  /** Whether it could commit now. */
  readonly holds = ({ container, life }: Running): boolean => {
    if (!('epoch' in life)) return false;
    try {
      checkLife(container, life satisfies Claim);
      return true;
    } catch {
      return false;
    }
  };

  remove(): void {
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

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
        const world = new Hosts();
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
