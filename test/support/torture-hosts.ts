import { mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { programOf, statFields } from '../../src/actions/processes.ts';
import { loopShare, type Share } from './frozen-share.ts';
import { busyboxImage } from './images.ts';
import { processesBy, wordsOf } from './proc.ts';
import { run } from './run.ts';
import { type Stack, startStack } from './stack.ts';
import type { Troubles } from './torture-oracle.ts';
import type { Blow, Side, Weather } from './torture-schedule.ts';
import { waitFor } from './wait.ts';

/** How old a life on another host must be before that host counts as lost. */
export const takeoverMs = 2_000;

const settings = {
  takeoverAfterSeconds: takeoverMs / 1000,
  freezeStallSeconds: 3,
  shareTimeoutSeconds: 1,
  lockTimeoutSeconds: 60,
};

/** One of two hosts that share the place of the images: an engine, a run directory, and a disk of its own. */
export class TortureHost {
  readonly side: Side;
  readonly stack: Stack;
  readonly image: string;
  readonly #troubles: Troubles;
  #loss: Promise<void> | undefined;

  constructor(side: Side, stack: Stack, image: string, troubles: Troubles) {
    this.side = side;
    this.stack = stack;
    this.image = image;
    this.#troubles = troubles;
  }

  get runcRoot(): string {
    return `/run/containerd/runc/${this.stack.namespace}`;
  }

  get scratch(): string {
    return join(this.stack.dir, 'scratch');
  }

  /** Kills containerd, and starts it again; whoever comes meanwhile waits until it answers. */
  loseEngine(forMs: number): Promise<void> {
    this.#loss ??= (async () => {
      const trouble = this.#troubles.add({
        kind: 'containerd',
        on: this.side,
        from: Date.now(),
        to: Number.POSITIVE_INFINITY,
      });
      try {
        await this.stack.containerd.kill();
        await delay(forMs);
        await this.stack.containerd.start();
      } finally {
        trouble.to = Date.now();
        this.#loss = undefined;
      }
    })();
    return this.#loss;
  }

  /** Waits until there is an engine. */
  async engine(): Promise<void> {
    await this.#loss;
  }

  /** How the engine sees a container's task. */
  async statusOf(id: string): Promise<'running' | 'paused' | 'stopped' | 'created' | 'unknown' | 'gone'> {
    const { stdout } = await waitFor(
      'the engine to list its tasks',
      async () => {
        await this.engine();
        return this.stack.ctr(['tasks', 'list'], { timeoutMs: 20_000 });
      },
      { timeoutMs: 60_000 },
    );
    const row = stdout.split('\n').find((line) => line.split(/\s+/)[0] === id);
    if (row === undefined) return 'gone';
    return (row.split(/\s+/)[2]?.toLowerCase() ?? 'unknown') as 'running';
  }
}

/** The pids of those who work for one container of this host. */
export function victimsOf({ runcRoot, stack }: TortureHost, victim: Blow['victim'], id: string): number[] {
  const isOwn = (words: readonly string[]): boolean =>
    words.includes(id) && words.some((word) => word === runcRoot || word === stack.namespace);
  switch (victim) {
    case 'wrapper':
      return processesBy(
        (words) => isOwn(words) && words.some((word) => word.endsWith('/dist/tardis-runc.cjs')),
      );
    case 'runc':
      return processesBy(isOwn).filter((pid) => programOf(pid) === 'runc');
    case 'criu':
      return processesBy((words) => words.includes('swrk')).filter((pid) =>
        isOwn(wordsOf(Number(statFields(pid)[1]))),
      );
    case 'guardian':
      return processesBy(
        (words) => words.includes(id) && words.some((word) => word.endsWith('/bin/tardis-guardian')),
      );
    case 'shim':
      return processesBy(isOwn).filter((pid) => programOf(pid).startsWith('containerd-shim'));
    case 'caller':
      return processesBy(isOwn).filter((pid) => programOf(pid) === 'ctr');
    case 'containerd':
      return [];
  }
}

export class TortureHosts {
  readonly hosts: Readonly<Record<Side, TortureHost>>;
  readonly troubles: Troubles;
  readonly #share: Share;

  private constructor(hosts: Record<Side, TortureHost>, share: Share, troubles: Troubles) {
    this.hosts = hosts;
    this.#share = share;
    this.troubles = troubles;
  }

  /** Starts two stacks, whose images are on a file system of the first one's that can be frozen and filled. */
  static async start(troubles: Troubles): Promise<TortureHosts> {
    const begin = async (side: Side): Promise<TortureHost> => {
      const config = { hostId: side, ...settings };
      const stack = await startStack({ rootJobsOnly: true, config, tmpfs: { scratch: '64m' } });
      // What a killed engine, or its client, leaves of a checkpoint is swept with the rest.
      stack.env.TMPDIR = join(stack.dir, 'tmp');
      mkdirSync(stack.env.TMPDIR);
      await stack.containerd.kill();
      await stack.containerd.start();
      return new TortureHost(side, stack, await busyboxImage(stack), troubles);
    };
    const hosts = { a: await begin('a'), b: await begin('b') };
    const share = await loopShare(hosts.a.stack.dir);
    const checkpointRoot = join(share.path, 'images');
    mkdirSync(checkpointRoot, { mode: 0o700 });
    for (const { stack } of Object.values(hosts)) {
      const config = JSON.parse(readFileSync(stack.configFile, 'utf8'));
      writeFileSync(stack.configFile, JSON.stringify({ ...config, checkpointRoot }, null, 2));
    }
    return new TortureHosts(hosts, share, troubles);
  }

  get images(): string {
    return join(this.#share.path, 'images');
  }

  /** Lets some weather come and go. */
  async weather({ kind, on, forMs }: Weather): Promise<void> {
    if (kind === 'containerd') return this.hosts[on].loseEngine(forMs);
    const trouble = this.troubles.add({
      kind,
      ...(kind === 'scratch' ? { on } : {}),
      from: Date.now(),
      to: Number.POSITIVE_INFINITY,
    });
    try {
      if (kind === 'frozen') await this.#share.stop();
      else await fill(kind === 'full' ? this.#share.path : this.hosts[on].scratch);
      await delay(forMs);
    } finally {
      await this.#clear();
      trouble.to = Date.now();
    }
  }

  /** The share answers, and there is room. */
  async #clear(): Promise<void> {
    await this.#share.answer();
    for (const directory of [this.#share.path, ...Object.values(this.hosts).map(({ scratch }) => scratch)])
      rmSync(fillerIn(directory), { recursive: true, force: true });
  }

  async stop(): Promise<void> {
    await this.#clear();
    await this.hosts.b.stack.stop();
    await this.#share.remove();
    await this.hosts.a.stack.stop();
  }
}

const fillerIn = (directory: string): string => join(directory, 'filler');

/** Leaves no byte of a file system free: what can be had at once first, then the rest of it. */
async function fill(directory: string): Promise<void> {
  const filler = fillerIn(directory);
  mkdirSync(filler);
  const { bfree, bsize } = statfsSync(directory);
  const most = Math.max(bsize, (bfree - 256) * bsize);
  await run('fallocate', ['--length', String(most), join(filler, 'most')], { mayFail: true });
  for (const size of ['64k', '4k', '1'])
    await run('dd', ['if=/dev/zero', `of=${join(filler, size)}`, `bs=${size}`, 'count=4000'], {
      mayFail: true,
    });
}
