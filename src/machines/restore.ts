import { assign, fromPromise, setup } from 'xstate';
import {
  type ContainerIdentity,
  type Failure,
  failureOf,
  type ImagePlace,
  type RuncCall,
} from './vocabulary.ts';

export interface RestoreInput {
  readonly container: ContainerIdentity;
  readonly image: ImagePlace;
  /** Older images, the newest first: the next one is taken where one is refused before anything was touched. */
  readonly fallbacks: readonly ImagePlace[];
  /** The epoch in which the container carries the job on; undefined where the place of the images was out of reach. */
  readonly epoch: number | undefined;
  /** The original `create`, whose pid file, console socket, and global flags the restore takes on. */
  readonly call: RuncCall;
}

export interface RestoreContext extends RestoreInput {
  readonly failure?: Failure | undefined;
  /** The rollback's own failure: the root file system is not known to be whole. */
  readonly rollbackFailure?: Failure;
}

export type RestoreOutput =
  | { readonly outcome: 'restored'; readonly image: ImagePlace }
  /** Nothing was touched, or everything was put back: the container may start from scratch. */
  | { readonly outcome: 'rolledBack'; readonly failure: Failure }
  | { readonly outcome: 'failed'; readonly failure: Failure };

const step = fromPromise<void, RestoreInput>(async () => {
  throw new Error('no service was provided');
});
const inputOf = ({ context }: { context: RestoreContext }): RestoreInput => ({
  container: context.container,
  image: context.image,
  fallbacks: context.fallbacks,
  epoch: context.epoch,
  call: context.call,
});
const errorOf = (event: unknown): Failure => failureOf((event as { error: unknown }).error);

/**
 * One restore, from a whole image to a container that is held: its tasks are frozen as they were dumped and run
 * on at `start`. Whatever fails, the root file system is put back as it was and runc's leftovers are removed.
 */
export const restoreMachine = setup({
  types: {
    context: {} as RestoreContext,
    input: {} as RestoreInput,
    output: {} as RestoreOutput,
  },
  actors: {
    validateImage: step,
    /** Saves the new container's own root file system changes, for a rollback. */
    saveRollback: step,
    applyRootfs: step,
    restoreMemory: step,
    /** Freezes the restored tasks, continues them while frozen, and brings `lo` up. */
    hold: step,
    dropRollback: step,
    removeLeftovers: step,
    resetRootfs: step,
    /** Notes beside the image that it could not be restored, and why. */
    markImage: fromPromise<void, RestoreInput & { readonly failure: Failure | undefined }>(async () => {
      throw new Error('no service was provided');
    }),
  },
  actions: {
    keepFailure: assign(({ event }) => ({ failure: errorOf(event) })),
    takeNextImage: assign(({ context }) => {
      const [image = context.image, ...fallbacks] = context.fallbacks;
      return { image, fallbacks, failure: undefined };
    }),
    keepRollbackFailure: assign(({ event }) => ({ rollbackFailure: errorOf(event) })),
  },
  guards: {
    hasFallback: ({ context }) => context.fallbacks.length > 0,
  },
}).createMachine({
  id: 'restore',
  context: ({ input }) => ({ ...input }),
  initial: 'validating',
  states: {
    validating: {
      invoke: {
        src: 'validateImage',
        input: inputOf,
        onDone: 'savingRollback',
        onError: { target: 'refusing', actions: 'keepFailure' },
      },
    },
    refusing: {
      invoke: {
        src: 'markImage',
        input: ({ context }) => ({ ...inputOf({ context }), failure: context.failure }),
        onDone: [
          { guard: 'hasFallback', target: 'validating', actions: 'takeNextImage' },
          { target: 'rolledBack' },
        ],
        onError: [
          { guard: 'hasFallback', target: 'validating', actions: 'takeNextImage' },
          { target: 'rolledBack' },
        ],
      },
    },
    savingRollback: {
      invoke: {
        src: 'saveRollback',
        input: inputOf,
        onDone: 'applyingRootfs',
        onError: { target: 'marking', actions: 'keepFailure' },
      },
    },
    applyingRootfs: {
      invoke: {
        src: 'applyRootfs',
        input: inputOf,
        onDone: 'restoringMemory',
        onError: { target: 'rollingBack', actions: 'keepFailure' },
      },
    },
    restoringMemory: {
      invoke: {
        src: 'restoreMemory',
        input: inputOf,
        onDone: 'holding',
        onError: { target: 'rollingBack', actions: 'keepFailure' },
      },
    },
    holding: {
      invoke: {
        src: 'hold',
        input: inputOf,
        onDone: 'tidying',
        onError: { target: 'rollingBack', actions: 'keepFailure' },
      },
    },
    tidying: {
      // What the rollback would have needed is only litter by now: failing to remove it fails nothing.
      invoke: { src: 'dropRollback', input: inputOf, onDone: 'restored', onError: 'restored' },
    },
    rollingBack: {
      initial: 'removingLeftovers',
      states: {
        removingLeftovers: {
          invoke: {
            src: 'removeLeftovers',
            input: inputOf,
            onDone: 'resettingRootfs',
            onError: { target: '#restore.failed', actions: 'keepRollbackFailure' },
          },
        },
        resettingRootfs: {
          invoke: {
            src: 'resetRootfs',
            input: inputOf,
            onDone: 'tidying',
            onError: { target: '#restore.failed', actions: 'keepRollbackFailure' },
          },
        },
        tidying: {
          invoke: {
            src: 'dropRollback',
            input: inputOf,
            onDone: '#restore.marking',
            onError: '#restore.marking',
          },
        },
      },
    },
    marking: {
      invoke: {
        src: 'markImage',
        input: ({ context }) => ({ ...inputOf({ context }), failure: context.failure }),
        onDone: 'rolledBack',
        // A mark that cannot be written (a full disk) must not keep the job from starting.
        onError: 'rolledBack',
      },
    },
    restored: { type: 'final' },
    rolledBack: { type: 'final' },
    failed: { type: 'final' },
  },
  output: ({ context }): RestoreOutput => {
    const { failure, rollbackFailure, image } = context;
    if (!failure) return { outcome: 'restored', image };
    if (!rollbackFailure) return { outcome: 'rolledBack', failure };
    return {
      outcome: 'failed',
      failure: {
        ...rollbackFailure,
        message: `the restore failed (${failure.message}) and so did its rollback: ${rollbackFailure.message}`,
      },
    };
  },
});
