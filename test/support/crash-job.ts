import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { indexEntryOf } from '../../src/actions/container-index.ts';
import { noteEntry, readLedger } from '../../src/actions/ledger.ts';
import { readManifest } from '../../src/actions/manifest.ts';
import { processes, statFields } from '../../src/actions/processes.ts';
import { namesIn, targetOf, textOf } from '../../src/actions/read-or-nothing.ts';
import { trialCgroupOf } from '../../src/actions/trial-place.ts';
import { validateImage } from '../../src/actions/validate-image.ts';
import type { Call, DirectRunc } from './direct-runc.ts';
import { counting, ticksOf } from './jobs.ts';
import { fixturesDir } from './paths.ts';
import { processesBy, wordsOf } from './proc.ts';
import { rollbacksIn } from './rollbacks.ts';
import type { Ran } from './run.ts';
import type { Stack } from './stack.ts';
import { mountsUnder } from './sweep.ts';
import { waitFor } from './wait.ts';

const key = 'job';

/** An image that was made once, and the last number that its job had printed. */
export type Template = { images: string; last: number };

/** A counting job in a bundle of its own, with images of its own, called without an engine. */
export class CrashJob {
  readonly #stack: Stack;
  readonly #runc: DirectRunc;
  readonly id: string;
  readonly bundle: string;
  readonly #imageRoot: string;
  /** The call whose pipes the job writes into. */
  call: Call | undefined;

  private constructor(stack: Stack, runc: DirectRunc, id: string, bundle: string, imageRoot: string) {
    this.#stack = stack;
    this.#runc = runc;
    this.id = id;
    this.bundle = bundle;
    this.#imageRoot = imageRoot;
  }

  static async make(
    stack: Stack,
    runc: DirectRunc,
    id: string,
    {
      imagesOf = id,
      more = {},
      args = counting,
    }: { imagesOf?: string; more?: Record<string, string>; args?: string[] } = {},
  ): Promise<CrashJob> {
    const imageRoot = join(stack.dir, 'roots', imagesOf);
    mkdirSync(imageRoot, { recursive: true });
    const env = {
      TARDIS_ENABLE: '1',
      TARDIS_CHECKPOINT_KEY: key,
      TARDIS_CHECKPOINT_HOST_PATH: imageRoot,
      ...more,
    };
    const bundle = await runc.bundle(id, { args, env });
    return new CrashJob(stack, runc, id, bundle, imageRoot);
  }

  get images(): string {
    return join(this.#imageRoot, key);
  }

  /** Where the caller wants CRIU's files. */
  get imagePath(): string {
    return join(this.#stack.dir, 'given', this.id);
  }

  /** Gives the job an image, as one of its earlier lives would have left it. */
  takeImage({ images }: Template): void {
    const [life] = readLedger(this.images).entries;
    for (const name of ['1', 'current', ...(life ? [] : ['ledger'])]) {
      cpSync(join(images, name), join(this.images, name), { recursive: true, verbatimSymlinks: true });
    }
    // A job that runs has taken itself up already: as if the image were its own.
    if (life) noteEntry(this.images, { kind: 'image', epoch: life.number, generation: 1 });
  }

  /** A command that begins its life: its streams become the job's. */
  begin(command: 'create' | 'restore', env: Record<string, string> = {}, given?: string): Call {
    const flags = given
      ? [
          '--image-path',
          given,
          '--work-path',
          join(this.#stack.dir, 'work', this.id),
          '--detach',
          '--no-subreaper',
        ]
      : [];
    mkdirSync(join(this.#stack.dir, 'work'), { recursive: true });
    this.call = this.#runc.begin([command, '--bundle', this.bundle, ...flags, this.id], { env });
    return this.call;
  }

  /** Any other command, which may fail. */
  run(words: string[], env: Record<string, string> = {}): Promise<Ran> {
    return this.#runc.run([...words, this.id], { env: { ...this.#stack.env, ...env }, mayFail: true });
  }

  checkpoint(words: string[], env?: Record<string, string>): Promise<Ran> {
    return this.run(['checkpoint', '--image-path', this.imagePath, ...words], env);
  }

  /**
   * A checkpoint as an engine's shim asks for it, in a process group of its own.
   *
   * @param pauses whether it pauses the container before, which is the checkpoint's pause then.
   * @param cgroup a directory of the memory controller to do it in.
   */
  checkpointByShim(
    words: string[],
    env: Record<string, string>,
    { pauses, cgroup = '' }: { pauses: boolean | 'twice'; cgroup?: string | undefined },
  ): Promise<Ran> {
    return this.#runc.run(['checkpoint', '--image-path', this.imagePath, ...words, this.id], {
      program: join(fixturesDir, 'containerd-shim'),
      env: {
        ...{ ...this.#stack.env, ...env, RUNTIME: this.#stack.runtime, CGROUP: cgroup },
        PAUSES: pauses === true ? 'yes' : pauses || '',
      },
      mayFail: true,
    });
  }

  async start(): Promise<void> {
    const { exitCode, stderr } = await this.run(['start']);
    if (exitCode !== 0) throw new Error(`cannot start ${this.id}: ${stderr}`);
  }

  async status(): Promise<string> {
    const { stdout } = await this.#runc.run(['state', this.id], { program: 'runc', mayFail: true });
    return stdout === '' ? 'gone' : (JSON.parse(stdout) as { status: string }).status;
  }

  get ticks(): number[] {
    return this.call ? ticksOf(this.call) : [];
  }

  /** Waits until it has printed so many numbers more; fails where one is lost or comes twice. */
  async countsOn(by = 2, timeoutMs?: number): Promise<void> {
    const wanted = this.ticks.length + by;
    await waitFor(`${this.id} to count on`, () => this.ticks.length >= wanted, {
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      seen: () => this.call?.output().slice(-300) ?? 'nothing',
    });
    const [first = 0] = this.ticks;
    const expected = this.ticks.map((_, i) => first + i);
    if (String(this.ticks) !== String(expected)) throw new Error(`${this.id} counted ${this.ticks}`);
  }

  /** What the log says of this container, from warnings on. */
  warnings(): string[] {
    return readFileSync(this.#stack.logFile, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as { id: string; level: string; msg: string })
      .filter(({ id, level }) => id === this.id && (level === 'warn' || level === 'error'))
      .map(({ msg }) => msg);
  }

  /** The generation that is current, once its files have been compared with its manifest; 0 where there is none. */
  async currentImage(): Promise<number> {
    if (!existsSync(join(this.images, 'current'))) return 0;
    const name = readlinkSync(join(this.images, 'current'));
    const { host, container } = readManifest(join(this.images, name));
    await validateImage(join(this.images, name), {
      ...{ key, shape: container.shape, facts: host },
      readBase: async () => undefined,
    });
    return Number(name);
  }

  /** Everything of a wrapper's that must not be there while none works: images that are not whole, drafts. */
  async litter(): Promise<string[]> {
    const current = await this.currentImage();
    const strayImages = namesIn(this.images)
      .filter((name) => !/^(current|ledger|\d+\.failed\.jsonl)$/.test(name))
      .filter((name) => !/^\d+$/.test(name) || Number(name) > current);
    const drafts = namesIn(this.bundle).filter((name) => /^tardis\.json./.test(name));
    const scratch = namesBelow(join(this.#stack.dir, 'scratch')).filter((path) =>
      `${path}/`.includes(`/${this.id}/`),
    );
    return [...strayImages.map((name) => `image ${name}`), ...drafts, ...scratch];
  }

  /** What was saved of its root file system, and neither used nor dropped. */
  rollbacks(): string[] {
    const name = createHash('sha256').update(this.bundle).digest('hex').slice(0, 16);
    return rollbacksIn(join(this.#stack.dir, 'scratch')).filter((found) => found === name);
  }

  /** What is left of a container that has been deleted. */
  async leftovers(): Promise<string[]> {
    const { runDir, namespace } = this.#stack;
    const cgroup = join(`${namespace}-direct`, this.id);
    const trial = trialCgroupOf({ root: this.#runc.root, id: this.id });
    const places = [
      join(this.#runc.root, this.id),
      indexEntryOf(runDir, this.#runc.root, this.id),
      join(runDir, 'locks', this.#runc.root, this.id),
      ...['', ...namesIn('/sys/fs/cgroup')].flatMap((controller) =>
        [cgroup, trial].map((name) => join('/sys/fs/cgroup', controller, name)),
      ),
    ];
    const own = ['config.json', 'rootfs', 'tardis.json'];
    return [
      ...(await this.litter()),
      ...this.rollbacks(),
      ...places.filter((place) => existsSync(place)),
      ...namesIn(this.bundle).filter((name) => !own.includes(name)),
      ...mountsUnder(this.bundle),
      ...this.processes().map((pid) => `process ${pid}: ${wordsOf(pid).join(' ')}`),
      ...namesIn('/proc').filter((pid) => textOf(`/proc/${pid}/cgroup`).includes(`${cgroup}\n`)),
      ...this.copies().map((pid) => `copy ${pid}`),
    ];
  }

  /** The wrappers, shells and runcs that work on this container, but for the pipeline that the test began itself. */
  processes(): number[] {
    return processesBy((words) => words.includes(this.id) && !words.some((word) => word.includes('/call-')));
  }

  /** The processes of a copy of the job, which was restored beside it. */
  copies(): number[] {
    const cgroup = trialCgroupOf({ root: this.#runc.root, id: this.id });
    return processes().filter((pid) => textOf(`/proc/${pid}/cgroup`).includes(`${cgroup}\n`));
  }

  wrappers(): number[] {
    return this.processes().filter((pid) =>
      wordsOf(pid).some((word) => word.endsWith('/dist/tardis-runc.cjs')),
    );
  }

  /** The guardian of its checkpoint, but for the clock that belongs to it. */
  guardian(): number | undefined {
    return this.processes().find(
      (pid) =>
        wordsOf(pid)[1]?.endsWith('/bin/tardis-guardian') && parentOf(pid) === Number(wordsOf(pid).at(-1)),
    );
  }

  /** The runc that a fault has stopped before its first instruction. */
  hanging(): number | undefined {
    return this.processes().find(
      (pid) =>
        wordsOf(pid)[2]?.startsWith('kill -STOP') && /^State:\s+T/m.test(textOf(`/proc/${pid}/status`)),
    );
  }

  /** Whether a command waits for the container's lock. */
  isAwaited(): boolean {
    const lock = join(this.#stack.runDir, 'locks', this.#runc.root, this.id);
    return namesIn('/proc').some(
      (pid) => wordsOf(Number(pid))[0] === 'flock' && targetOf(`/proc/${pid}/fd/3`) === lock,
    );
  }
}

const namesBelow = (directory: string): string[] =>
  namesIn(directory).flatMap((name) => {
    const path = join(directory, name);
    return [path, ...namesBelow(path)];
  });

/** proc_pid_stat(5): fields 4 and 5 are the parent and the process group. */
const parentOf = (pid: number): number => Number(statFields(pid)[1]);

/** Whether a process leads a group of its own: others than those that it has begun are not in there. */
export const leadsGroup = (pid: number): boolean => Number(statFields(pid)[2]) === pid;
