import { RuncFailure } from '../../src/actions/runc.ts';
import type { CheckpointContext, CheckpointInput } from '../../src/machines/checkpoint.ts';
import type { Interruption, Recovered } from '../../src/machines/container-context.ts';
import type { ImageInMaking, ImagePlace, ObservedStatus } from '../../src/machines/vocabulary.ts';

/** What is left of a host when its wrapper dies: one container, its root file system, its images. */
export interface World {
  container: 'none' | 'created' | 'running' | 'frozen' | 'dead';
  /** Restored, and not let go yet. */
  held: boolean;
  rootfs: 'clean' | 'half' | 'applied';
  /** The root file system as it was before a restore, where it has been saved whole. */
  rollback: World['rootfs'] | undefined;
  images: Record<number, 'partial' | 'whole'>;
  current: number | undefined;
  /** Whether there is a copy of the job, restored to verify its image. */
  copy: boolean;
  /** Whether the job has run on since the dump of the current image. */
  ranPastImage: boolean;
  /** What must never have happened, and did. */
  wrongs: string[];
}

export const emptyWorld = (): World => ({
  container: 'none',
  held: false,
  rootfs: 'clean',
  rollback: undefined,
  images: {},
  current: undefined,
  copy: false,
  ranPastImage: false,
  wrongs: [],
});

export const isAlive = ({ container }: World): boolean =>
  container === 'created' || container === 'running' || container === 'frozen';

/** What runc says of the container. */
export function observe({ container }: World): ObservedStatus {
  const words = { none: 'gone', created: 'created', running: 'running', frozen: 'paused', dead: 'stopped' };
  return words[container] as ObservedStatus;
}

const refuse = (what: string): never => {
  throw new RuncFailure(1, `cannot ${what}`);
};

/** One indivisible change of the world, as the disk or the kernel makes it. */
export interface Effect {
  readonly name: string;
  /** Kernel and unlink calls that fail on no healthy host: the actions count on these. */
  readonly sure?: boolean;
  run(world: World): void;
}

const effect = (name: string, run: (world: World) => void): Effect => ({ name, run });
const sure = (name: string, run: (world: World) => void): Effect => ({ name, run, sure: true });

function thaw(world: World): void {
  if (world.container !== 'frozen') return;
  world.container = 'running';
  world.held = false;
  world.ranPastImage = true;
}

function freeze(world: World): void {
  if (world.container === 'running') world.container = 'frozen';
  else if (world.container !== 'frozen') refuse('freeze');
}

/** `runc delete --force`. */
function end(world: World): void {
  const { current } = world;
  if (isAlive(world) && (current === undefined || world.images[current] !== 'whole')) {
    world.wrongs.push('a job was ended without a committed image');
  }
  if (isAlive(world) && world.ranPastImage) world.wrongs.push('a job was ended that had run past its image');
  world.container = 'none';
  world.held = false;
}

const begin = (as: 'created' | 'running') => (world: World) => {
  if (world.container !== 'none') refuse('create');
  if (world.rootfs !== 'clean')
    world.wrongs.push(`a container was created on a root that is ${world.rootfs}`);
  world.container = as;
  world.ranPastImage = true;
};

const drop = ({ generation }: ImagePlace): Effect =>
  effect('drop the image', (world) => {
    if (world.current !== generation) delete world.images[generation];
  });

const resetRootfs: Effect[] = [
  effect('begin the reset', (world) => {
    if (world.rollback) world.rootfs = 'half';
  }),
  effect('end the reset', (world) => {
    if (world.rollback) world.rootfs = world.rollback;
  }),
];
const removeLeftovers = effect('remove the leftovers', end);
const dropRollback = effect('drop the rollback', (world) => {
  world.rollback = undefined;
});

const dropCopy = sure('drop the copy', (world) => {
  world.copy = false;
});

const undo = (
  { wasPaused, pausedForCheckpoint }: Pick<CheckpointInput, 'wasPaused' | 'pausedForCheckpoint'>,
  image: ImagePlace | undefined,
): Effect[] => [
  wasPaused && !pausedForCheckpoint
    ? sure('freeze again', (world) => {
        if (world.container === 'running') freeze(world);
      })
    : sure('thaw', thaw),
  dropCopy,
  ...(image ? [drop(image)] : []),
];

const place = (generation: number): ImageInMaking => ({
  generation,
  directory: `/images/${generation}`,
  epoch: 1,
});
const imageIn = (input: unknown): ImagePlace => (input as { image: ImagePlace }).image;
const argvIn = (input: unknown): readonly string[] => (input as { call: { argv: string[] } }).call.argv;

/** Changes the world, and looks at once whether anybody could now see an image that is not whole. */
export function apply({ run, name }: Effect, world: World): void {
  run(world);
  const { current, images } = world;
  if (current !== undefined && images[current] !== 'whole') {
    world.wrongs.push(`after "${name}" the current image was not whole`);
  }
}

/** What each service does to the world, as the actions of its name do. */
export const services: Readonly<Record<string, (input: unknown, world: World) => readonly Effect[]>> = {
  findImage: () => [effect('look', () => {})],
  createAfresh: (input) => [effect('create', begin(argvIn(input)[0] === 'run' ? 'running' : 'created'))],
  start: () => [
    effect('start', (world) => {
      if (world.container !== 'created') refuse('start');
      world.container = 'running';
    }),
  ],
  pause: () => [
    effect('pause', (world) => (world.container === 'running' ? freeze(world) : refuse('pause'))),
  ],
  resume: () => [
    effect('resume', (world) => (world.container === 'frozen' ? thaw(world) : refuse('resume'))),
  ],
  delete: (input) => [
    effect('delete', (world) => {
      if (world.container === 'running' || world.container === 'frozen') {
        if (!argvIn(input).includes('--force')) refuse('delete');
      }
      Object.assign(world, { container: 'none', held: false, rollback: undefined });
    }),
  ],
  restoreGiven: () => [effect('restore', begin('running'))],
  release: () => [effect('release', thaw)],

  prepareImage: (input, world) => {
    const { generation } = newImage(world);
    return [
      ...((input as CheckpointInput).pausedForCheckpoint ? [sure('thaw for the wait', thaw)] : []),
      effect('open', ({ images }) => {
        images[generation] = 'partial';
      }),
    ];
  },
  freeze: () => [effect('freeze', freeze)],
  saveRootfs: () => [effect('save', () => {})],
  dumpMemory: () => [
    effect('dump', (world) => {
      if (world.container !== 'frozen') refuse('dump');
    }),
  ],
  thaw: () => [effect('thaw', thaw)],
  describeImage: () => [effect('describe', () => {})],
  handOver: () => [effect('link', () => {})],
  verifyImage: () => [
    effect('restore a copy', (world) => {
      world.copy = true;
    }),
    dropCopy,
  ],
  commitImage: (input) => [
    effect('rename', ({ images }) => {
      images[imageIn(input).generation] = 'whole';
    }),
    effect('swap', (world) => {
      world.current = imageIn(input).generation;
      world.ranPastImage = world.container !== 'frozen';
    }),
  ],
  endJob: () => [effect('end', end)],
  undo: (input) => undo(input as CheckpointInput, imageIn(input)),

  validateImage: (input) => [
    effect('validate', ({ images }) => {
      if (images[imageIn(input).generation] !== 'whole') refuse('use this image');
    }),
  ],
  saveRollback: () => [
    effect('look for an earlier rollback', () => {}),
    effect('save the rollback', (world) => {
      world.rollback ??= world.rootfs;
    }),
  ],
  applyRootfs: () => [
    effect('begin to apply', (world) => {
      if (!world.rollback) world.wrongs.push('a root file system was changed that could not be put back');
      world.rootfs = 'half';
    }),
    effect('end to apply', (world) => {
      world.rootfs = 'applied';
    }),
  ],
  restoreMemory: () => [
    effect('restore', (world) => {
      if (world.container !== 'none') refuse('restore');
      Object.assign(world, { container: 'frozen', held: true, ranPastImage: false });
    }),
  ],
  hold: () => [effect('hold', (world) => (world.container === 'frozen' ? undefined : refuse('hold')))],
  dropRollback: () => [dropRollback],
  removeLeftovers: () => [removeLeftovers],
  resetRootfs: () => resetRootfs,
  markImage: () => [effect('mark', () => {})],
};

/** What a service answers, from the world before its effects. */
export function answerOf(name: string, world: World): unknown {
  if (name === 'delete') return world.container === 'none' ? 1 : 0;
  if (name === 'prepareImage') return newImage(world);
  if (name !== 'findImage') return undefined;
  const { current, images } = world;
  const whole = Object.keys(images)
    .map(Number)
    .filter((generation) => images[generation] === 'whole');
  const usable = whole.filter((generation) => generation <= (current ?? 0)).sort((a, b) => b - a);
  return { life: { epoch: 1 }, images: usable.map(place) };
}

/** Every other image is to be verified. */
const newImage = ({ images }: World): ImageInMaking => {
  const generation = Math.max(0, ...Object.keys(images).map(Number)) + 1;
  return { ...place(generation), ...(generation % 2 === 0 ? { isToBeVerified: true } : {}) };
};

/** What has to be done before a create where an earlier restore was neither finished nor rolled back. */
export const putPredecessorRight = ({ rollback }: World): readonly Effect[] =>
  rollback === undefined ? [] : [...resetRootfs, dropRollback];

/** What src/actions/recover.ts does, on this world. */
export async function recover(
  { state, step, child }: Interruption,
  world: World,
  act: (effect: Effect) => Promise<void>,
): Promise<Omit<Recovered, 'note'>> {
  const inTurn = async (effects: readonly Effect[]) => {
    for (const effect of effects) await act(effect);
  };
  if (state === 'alive.restoring') {
    await inTurn([removeLeftovers, ...resetRootfs, dropRollback]);
    return { status: 'gone' };
  }
  const {
    image,
    request,
    wasPaused = false,
    pausedForCheckpoint,
  } = (child ?? {}) as Partial<CheckpointContext>;
  if (state === 'alive.checkpointing' && request) {
    const isCommitted = image !== undefined && world.current === image.generation && !request.leaveRunning;
    const isEnding = (step === 'committing' || step === 'endingJob') && world.container === 'frozen';
    if (isCommitted && step === 'endingJob' && world.container === 'none') return { status: 'checkpointed' };
    if (isCommitted && isEnding) {
      const hasEnded = await act(effect('end', end)).then(
        () => true,
        () => false,
      );
      if (hasEnded) return { status: 'checkpointed' };
    }
    await inTurn(undo({ wasPaused, pausedForCheckpoint }, image));
    return { status: observe(world), ...(pausedForCheckpoint ? { awaitsResume: true } : {}) };
  }
  if (state === 'alive.pausing') {
    await inTurn(undo({ wasPaused: false, pausedForCheckpoint: false }, undefined));
    return { status: observe(world), awaitsResume: true };
  }
  const status = observe(world);
  return { status: state === 'alive.releasing' && status === 'paused' ? 'restored' : status };
}
