import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ResumeAfter } from '../../src/actions/container-config.ts';
import type { Host } from '../../src/actions/host.ts';
import { commit, openPartial, partialOf } from '../../src/actions/image-store.ts';
import { keyDirectory } from '../../src/actions/ledger.ts';
import { type Claim, checkLife, claimLife } from '../../src/actions/lives.ts';
import { collectGarbage, giveUpLife } from '../../src/actions/retention.ts';
import { processStartTime } from '../../src/actions/runc-state.ts';
import type { ContainerIdentity, Life } from '../../src/machines/vocabulary.ts';
import { hostWith } from './action-host.ts';

export const hosts = ['a', 'b'] as const;
export type HostName = (typeof hosts)[number];

/** One container that was created and not yet deleted, on one of two hosts that share the images. */
export interface Running {
  readonly container: ContainerIdentity;
  readonly on: HostName;
  readonly life: Life;
  alive: boolean;
}

/** Two hosts with one place for images, and the containers of one job on them, all with the real ledger. */
export class TwoHosts {
  readonly #dir = mkdtempSync(join(tmpdir(), 'tardis-lives-'));
  readonly #resumeAfter: ResumeAfter | undefined;
  readonly running: Running[] = [];
  images = 0;

  /** @param resumeAfter the job's own setting. */
  constructor(resumeAfter?: ResumeAfter) {
    this.#resumeAfter = resumeAfter;
  }

  host(name: HostName, takeoverAfterSeconds = 60): Host {
    const host = hostWith();
    const runDir = join(this.#dir, `run-${name}`);
    return { ...host, config: { ...host.config, hostId: name, takeoverAfterSeconds, runDir } };
  }

  get place(): { readonly imageRoot: string; readonly key: string } {
    return { imageRoot: join(this.#dir, 'images'), key: 'job' };
  }

  get home(): string {
    return keyDirectory(this.place);
  }

  /** The same id may be used on both hosts, and again once its container is deleted. */
  create(on: HostName, id: string, patience: number): Running | undefined {
    if (this.running.some((other) => other.on === on && other.container.id === id)) return undefined;
    const root = join(this.#dir, `runc-${on}`);
    const container = { id, root, bundle: this.#dir, ...this.place };
    const life = claimLife(this.host(on, patience), container);
    const running = { container, on, life, alive: true };
    this.running.push(running);
    mkdirSync(join(root, id), { recursive: true });
    const record = {
      init_process_pid: process.pid,
      init_process_start: processStartTime(process.pid),
      cgroup_paths: {},
    };
    writeFileSync(join(root, id, 'state.json'), JSON.stringify(record));
    return running;
  }

  end(it: Running): void {
    const { container } = it;
    it.alive = false;
    rmSync(join(container.root, container.id), { recursive: true, force: true });
  }

  async delete(it: Running, how: 'killed' | 'finished' | 'failed'): Promise<void> {
    this.end(it);
    this.running.splice(this.running.indexOf(it), 1);
    const { life } = it;
    if ('epoch' in life) await giveUpLife(this.host(it.on), it.container, life, how, this.#resumeAfter);
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
