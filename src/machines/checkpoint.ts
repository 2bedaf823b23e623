import { assign, fromPromise, setup } from 'xstate';
import {
  type CheckpointRequest,
  type ContainerIdentity,
  type Failure,
  failureOf,
  type ImageInMaking,
  type Life,
  type RuncCall,
} from './vocabulary.ts';

export interface CheckpointInput {
  readonly container: ContainerIdentity;
  readonly call: RuncCall;
  readonly request: CheckpointRequest;
  /** Whether the caller had paused the container; it is left as it was found. */
  readonly wasPaused: boolean;
  /** Whether it did so for this checkpoint alone: nobody else may let the job run on when that is over. */
  readonly pausedForCheckpoint?: boolean | undefined;
  readonly life: Life | undefined;
}

export interface CheckpointContext extends CheckpointInput {
  readonly image?: ImageInMaking;
  readonly failure?: Failure;
}

export type CheckpointOutput =
  | { readonly outcome: 'checkpointed' | 'continues'; readonly image: ImageInMaking }
  | { readonly outcome: 'failed'; readonly failure: Failure };

/** What every step is given: the request and where the image is built. */
export interface CheckpointStep extends CheckpointInput {
  readonly image: ImageInMaking;
}

const step = fromPromise<void, CheckpointStep>(async () => {
  throw new Error('no service was provided');
});
const inputOf = ({ context }: { context: CheckpointContext }): CheckpointInput => ({
  container: context.container,
  call: context.call,
  request: context.request,
  wasPaused: context.wasPaused,
  pausedForCheckpoint: context.pausedForCheckpoint,
  life: context.life,
});
const stepOf = ({ context }: { context: CheckpointContext }): CheckpointStep => {
  const { image } = context;
  if (!image) throw new Error('a step was reached before the image had a place');
  return { ...inputOf({ context }), image };
};

/**
 * One checkpoint: the container is frozen, its files and its memory are saved into a partial image, the image
 * is made durable and put in place, and only then is the job ended or let go on.
 *
 * The dump itself never ends the job, not even for a checkpoint with exit: the container stays frozen until its
 * image is committed. A failure at any step therefore finds a container that can run on.
 */
export const checkpointMachine = setup({
  types: {
    context: {} as CheckpointContext,
    input: {} as CheckpointInput,
    output: {} as CheckpointOutput,
  },
  actors: {
    /** Makes sure that the container carries the job on, and makes the next generation's empty `.partial` directory. */
    prepareImage: fromPromise<ImageInMaking, CheckpointInput>(async () => {
      throw new Error('no service was provided');
    }),
    freeze: step,
    saveRootfs: step,
    dumpMemory: step,
    /** Lets a container go on that was not paused before, as soon as its memory is dumped. */
    thaw: step,
    /** Hashes every file and writes the manifest. */
    describeImage: step,
    /** Gives the caller's `--image-path` CRIU's files. */
    handOver: step,
    /** Restores the image once beside the job, where the host or the job wants that: a copy that never runs. */
    verifyImage: step,
    /** Syncs, renames, and enters the image into the ledger. */
    commitImage: step,
    /** Ends the job: its image is safe. */
    endJob: step,
    /** Drops what is not committed and what was handed over, and leaves the container as it was found. */
    undo: fromPromise<void, CheckpointInput & { readonly image: ImageInMaking | undefined }>(async () => {
      throw new Error('no service was provided');
    }),
  },
  actions: {
    keepFailure: assign(({ event }) => ({
      failure: failureOf((event as unknown as { error: unknown }).error),
    })),
  },
  guards: {
    leavesRunning: ({ context }) => context.request.leaveRunning,
    mustVerify: ({ context }) => context.image?.isToBeVerified === true,
    mustThaw: ({ context }) =>
      context.request.leaveRunning && (!context.wasPaused || context.pausedForCheckpoint === true),
  },
}).createMachine({
  id: 'checkpoint',
  context: ({ input }) => ({ ...input }),
  initial: 'preparing',
  states: {
    preparing: {
      invoke: {
        src: 'prepareImage',
        input: inputOf,
        onDone: { target: 'freezing', actions: assign({ image: ({ event }) => event.output }) },
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    freezing: {
      invoke: {
        src: 'freeze',
        input: stepOf,
        onDone: 'savingRootfs',
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    savingRootfs: {
      invoke: {
        src: 'saveRootfs',
        input: stepOf,
        onDone: 'dumping',
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    dumping: {
      invoke: {
        src: 'dumpMemory',
        input: stepOf,
        onDone: [{ guard: 'mustThaw', target: 'thawing' }, { target: 'describing' }],
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    thawing: {
      invoke: {
        src: 'thaw',
        input: stepOf,
        onDone: 'describing',
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    describing: {
      invoke: {
        src: 'describeImage',
        input: stepOf,
        onDone: 'handingOver',
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    handingOver: {
      invoke: {
        src: 'handOver',
        input: stepOf,
        onDone: [{ guard: 'mustVerify', target: 'verifying' }, { target: 'committing' }],
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    verifying: {
      invoke: {
        src: 'verifyImage',
        input: stepOf,
        onDone: 'committing',
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    committing: {
      invoke: {
        src: 'commitImage',
        input: stepOf,
        onDone: [{ guard: 'leavesRunning', target: 'continues' }, { target: 'endingJob' }],
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    endingJob: {
      invoke: {
        src: 'endJob',
        input: stepOf,
        onDone: 'checkpointed',
        onError: { target: 'undoing', actions: 'keepFailure' },
      },
    },
    undoing: {
      invoke: {
        src: 'undo',
        input: ({ context }) => ({ ...inputOf({ context }), image: context.image }),
        onDone: 'failed',
        onError: 'failed',
      },
    },
    checkpointed: { type: 'final' },
    continues: { type: 'final' },
    failed: { type: 'final' },
  },
  output: ({ context }): CheckpointOutput => {
    if (context.failure) return { outcome: 'failed', failure: context.failure };
    if (!context.image) throw new Error('a checkpoint ended without an image and without a failure');
    return { outcome: context.request.leaveRunning ? 'continues' : 'checkpointed', image: context.image };
  },
});
