import { assign, fromPromise, setup } from 'xstate';
import { type CheckpointInput, type CheckpointOutput, checkpointMachine } from './checkpoint.ts';
import {
  answerFailure,
  type ContainerContext,
  type ContainerEvent,
  type ContainerInput,
  commandOf,
  type DeleteStep,
  isPauseForCheckpoint,
  isSameShim,
  type Recovered,
  type RuncStep,
} from './container-context.ts';
import { type RestoreInput, type RestoreOutput, restoreMachine } from './restore.ts';
import { type ContainerIdentity, failureOf, type Life, type RuncCall, type TakenUp } from './vocabulary.ts';

const noCall: RuncCall = { argv: [], globals: [], switches: [], restoreFlags: [] };
const notProvided = async (): Promise<never> => {
  throw new Error('no service was provided');
};
const runcStep = fromPromise<void, RuncStep>(notProvided);
const runcInput = ({ context }: { context: ContainerContext }): RuncStep => ({
  container: context.container,
  call: context.call,
});

const epochOf = (life: Life | undefined): number | undefined =>
  life && 'epoch' in life ? life.epoch : undefined;

/** What an invoked service answered with, for the guards that are named: XState types them by commands alone. */
const outputOf = <Output>(event: unknown): Output => (event as { output: Output }).output;

/**
 * The life of one container, as Tardis sees it. One runc command is one event; the states whose names end in
 * "-ing" work, through invoked services, and in the others (tagged `resting`) a container waits for the next
 * command.
 */
export const containerMachine = setup({
  types: {
    context: {} as ContainerContext,
    input: {} as ContainerInput,
    events: {} as ContainerEvent,
    tags: {} as 'resting',
  },
  actors: {
    /** Takes the job up, and finds the images that it may be carried on from. */
    findImage: fromPromise<TakenUp, ContainerIdentity>(notProvided),
    /** `runc create` (or `run --detach`) with the caller's own argv. */
    createAfresh: runcStep,
    start: runcStep,
    pause: runcStep,
    resume: runcStep,
    /** Answers with runc's status, which is not 0 for a container that was gone before. */
    delete: fromPromise<number, DeleteStep>(notProvided),
    /** containerd's own restore, from an image that the caller names. */
    restoreGiven: fromPromise<Life, RuncStep>(notProvided),
    /** Lets a held, restored container go. */
    release: runcStep,
    restore: restoreMachine,
    checkpoint: checkpointMachine,
    recover: fromPromise<Recovered, ContainerInput>(notProvided),
  },
  actions: {
    keepCommand: assign(({ event }) => commandOf(event)),
    keepCommandWhilePaused: assign(({ context, event }) => ({
      ...commandOf(event),
      wasPaused: true,
      pausedForCheckpoint: 'call' in event && isPauseForCheckpoint(context.pausedBy, event.call.shim),
    })),
    /** The container runs, and the engine that has paused it does not know. */
    awaitResume: assign({ awaitsResume: true }),
    keepAwaitedResume: assign(({ event }) => ({
      awaitsResume: outputOf<Recovered>(event).awaitsResume ?? false,
    })),
    /** Answers with why an invoked service failed. */
    refuse: assign(({ event }) => answerFailure(failureOf((event as unknown as { error: unknown }).error))),
    awaitStart: assign({ startsAtOnce: false }),
    keepImage: assign(({ event }) => {
      const output = outputOf<CheckpointOutput>(event);
      if (output.outcome === 'failed') return answerFailure(output.failure);
      const { epoch, claim } = output.image;
      return { image: output.image, life: { epoch, ...(claim === undefined ? {} : { claim }) } };
    }),
    keepLife: assign(({ event }) => {
      const { life, images, failure } = outputOf<TakenUp>(event);
      const [image, ...fallbacks] = images;
      return { life, fallbacks, ...(image ? { image } : {}), ...(failure ? { failure } : {}) };
    }),
  },
  guards: {
    isInterrupted: ({ context }) => context.interruption !== undefined,
    startsAtOnce: ({ context }) => context.startsAtOnce,
    wasPaused: ({ context }) => context.wasPaused,
    awaitsResume: ({ context }) => context.awaitsResume,
    isPausedByCaller: ({ context, event }) =>
      'call' in event && isSameShim(context.pausedBy, event.call.shim),
    /** An engine's pause for a checkpoint ends with it: the engine may be gone, and its own resume never come. */
    pauseIsOver: ({ context }) => context.pausedForCheckpoint,
    mustFail: ({ event }) => outputOf<TakenUp>(event).mustFail === true,
    isForeground: ({ event }) => 'detach' in event && !event.detach,
    sawRunning: ({ event }) => event.type === 'OBSERVED' && event.status === 'running',
    sawPaused: ({ event }) => event.type === 'OBSERVED' && event.status === 'paused',
    sawStopped: ({ event }) =>
      event.type === 'OBSERVED' && (event.status === 'stopped' || event.status === 'gone'),
    foundImage: ({ event }) => outputOf<TakenUp>(event).images.length > 0,
    endedJob: ({ event }) => outputOf<CheckpointOutput>(event).outcome === 'checkpointed',
    isRestored: ({ event }) => outputOf<RestoreOutput>(event).outcome === 'restored',
    isRolledBack: ({ event }) => outputOf<RestoreOutput>(event).outcome === 'rolledBack',
    foundCreated: ({ event }) => outputOf<Recovered>(event).status === 'created',
    foundRunning: ({ event }) => outputOf<Recovered>(event).status === 'running',
    foundPaused: ({ event }) => outputOf<Recovered>(event).status === 'paused',
    foundCheckpointed: ({ event }) => outputOf<Recovered>(event).status === 'checkpointed',
    foundStopped: ({ event }) => outputOf<Recovered>(event).status === 'stopped',
    foundHeld: ({ event }) => outputOf<Recovered>(event).status === 'restored',
  },
}).createMachine({
  id: 'container',
  context: ({ input }) => ({
    ...input,
    call: noCall,
    startsAtOnce: false,
    wasPaused: false,
    pausedForCheckpoint: false,
    awaitsResume: false,
    fallbacks: [],
    answer: { status: 0 },
  }),
  initial: 'new',
  states: {
    new: {
      tags: 'resting',
      always: { guard: 'isInterrupted', target: 'recovering' },
      on: {
        CREATE: { target: 'alive.creating', actions: 'keepCommand' },
        RESTORE: [
          { guard: 'isForeground', target: 'alive.running', actions: 'keepCommand' },
          { target: 'alive.adopting', actions: 'keepCommand' },
        ],
        RUN: [
          { guard: 'isForeground', target: 'alive.running', actions: 'keepCommand' },
          { target: 'alive.creating', actions: 'keepCommand' },
        ],
        // A wrapper that died before its first step leaves an entry of a container that never was.
        DELETE: { target: 'deleting', actions: 'keepCommand' },
      },
    },
    alive: {
      initial: 'creating',
      on: {
        // A signal is runc's to deliver, at once: it moves nothing here, but the history shows it.
        KILL: { actions: 'keepCommand' },
        DELETE: { target: 'deleting', actions: 'keepCommand' },
      },
      states: {
        creating: {
          initial: 'lookingForImage',
          states: {
            lookingForImage: {
              invoke: {
                src: 'findImage',
                input: ({ context }) => context.container,
                onDone: [
                  {
                    guard: 'foundImage',
                    target: '#container.alive.restoring',
                    actions: 'keepLife',
                  },
                  {
                    guard: 'mustFail',
                    target: '#container.alive.failed',
                    actions: assign(({ event }) =>
                      event.output.failure ? answerFailure(event.output.failure) : {},
                    ),
                  },
                  { target: 'fromScratch', actions: 'keepLife' },
                ],
                onError: {
                  target: 'fromScratch',
                  actions: assign({ failure: ({ event }) => failureOf(event.error) }),
                },
              },
            },
            fromScratch: {
              invoke: {
                src: 'createAfresh',
                input: runcInput,
                onDone: [
                  { guard: 'startsAtOnce', target: '#container.alive.running' },
                  { target: '#container.alive.created' },
                ],
                onError: { target: '#container.alive.failed', actions: 'refuse' },
              },
            },
          },
        },
        created: {
          tags: 'resting',
          on: {
            START: { target: 'starting', actions: 'keepCommand' },
            OBSERVED: [
              { guard: 'sawRunning', target: 'running' },
              { guard: 'sawPaused', target: 'paused' },
              { guard: 'sawStopped', target: 'stopped' },
            ],
          },
        },
        starting: {
          invoke: {
            src: 'start',
            input: runcInput,
            onDone: 'running',
            onError: { target: 'created', actions: 'refuse' },
          },
        },
        running: {
          tags: 'resting',
          on: {
            PAUSE: { target: 'pausing', actions: 'keepCommand' },
            CHECKPOINT: { target: 'checkpointing', actions: 'keepCommand' },
            // The engine's own, after a checkpoint that has failed: Tardis has let the job go on already.
            RESUME: { guard: 'awaitsResume', actions: 'keepCommand' },
            OBSERVED: [
              { guard: 'sawPaused', target: 'paused' },
              { guard: 'sawStopped', target: 'stopped' },
            ],
          },
        },
        pausing: {
          invoke: {
            src: 'pause',
            input: runcInput,
            onDone: 'paused',
            onError: { target: 'running', actions: 'refuse' },
          },
        },
        paused: {
          tags: 'resting',
          on: {
            RESUME: { target: 'resuming', actions: 'keepCommand' },
            // A shim that has paused it, and asks again, was never told so: its engine was killed meanwhile.
            PAUSE: { guard: 'isPausedByCaller', actions: 'keepCommand' },
            CHECKPOINT: { target: 'checkpointing', actions: 'keepCommandWhilePaused' },
            OBSERVED: [
              { guard: 'sawRunning', target: 'running' },
              { guard: 'sawStopped', target: 'stopped' },
            ],
          },
        },
        resuming: {
          invoke: {
            src: 'resume',
            input: runcInput,
            onDone: 'running',
            onError: { target: 'paused', actions: 'refuse' },
          },
        },
        checkpointing: {
          invoke: {
            src: 'checkpoint',
            input: ({ context }): CheckpointInput => {
              if (!context.request) throw new Error('a checkpoint was begun without a request');
              const { container, call, request, wasPaused, pausedForCheckpoint, life } = context;
              return { container, call, request, wasPaused, pausedForCheckpoint, life };
            },
            onDone: [
              {
                guard: 'endedJob',
                target: 'checkpointed',
                actions: 'keepImage',
              },
              { guard: 'pauseIsOver', target: 'running', actions: ['keepImage', 'awaitResume'] },
              { guard: 'wasPaused', target: 'paused', actions: 'keepImage' },
              { target: 'running', actions: 'keepImage' },
            ],
            onError: [
              { guard: 'pauseIsOver', target: 'running', actions: ['refuse', 'awaitResume'] },
              { guard: 'wasPaused', target: 'paused', actions: 'refuse' },
              { target: 'running', actions: 'refuse' },
            ],
          },
        },
        checkpointed: { tags: 'resting' },
        restoring: {
          invoke: {
            src: 'restore',
            input: ({ context }): RestoreInput => {
              if (!context.image) throw new Error('a restore was begun without an image');
              const { container, image, fallbacks, life, call } = context;
              return { container, image, fallbacks, epoch: epochOf(life), call };
            },
            onDone: [
              {
                guard: 'isRestored',
                target: 'restored',
                actions: assign(({ event }) =>
                  event.output.outcome === 'restored' ? { image: event.output.image } : {},
                ),
              },
              {
                guard: 'isRolledBack',
                target: 'rolledBack',
                actions: assign(({ event }) =>
                  event.output.outcome === 'restored' ? {} : { failure: event.output.failure },
                ),
              },
              {
                target: 'failed',
                actions: assign(({ event }) =>
                  event.output.outcome === 'restored' ? {} : answerFailure(event.output.failure),
                ),
              },
            ],
            onError: { target: 'failed', actions: 'refuse' },
          },
        },
        restored: {
          tags: 'resting',
          always: { guard: 'startsAtOnce', target: 'releasing' },
          on: {
            START: { target: 'releasing', actions: 'keepCommand' },
            OBSERVED: [
              { guard: 'sawRunning', target: 'running' },
              { guard: 'sawStopped', target: 'stopped' },
            ],
          },
        },
        releasing: {
          invoke: {
            src: 'release',
            input: runcInput,
            onDone: 'running',
            // Held still: another `start` may let it go.
            onError: { target: 'restored', actions: ['refuse', 'awaitStart'] },
          },
        },
        rolledBack: {
          invoke: {
            src: 'createAfresh',
            input: runcInput,
            onDone: [{ guard: 'startsAtOnce', target: 'running' }, { target: 'created' }],
            onError: { target: 'failed', actions: 'refuse' },
          },
        },
        adopting: {
          invoke: {
            src: 'restoreGiven',
            input: runcInput,
            onDone: { target: 'running', actions: assign(({ event }) => ({ life: event.output })) },
            onError: { target: 'failed', actions: 'refuse' },
          },
        },
        stopped: {
          tags: 'resting',
          on: {
            OBSERVED: [
              { guard: 'sawRunning', target: 'running' },
              { guard: 'sawPaused', target: 'paused' },
            ],
          },
        },
        failed: {
          tags: 'resting',
          // What failed may have been Tardis's own look at a container that is well.
          on: {
            OBSERVED: [
              { guard: 'sawRunning', target: 'running' },
              { guard: 'sawPaused', target: 'paused' },
            ],
          },
        },
        lastKnown: { type: 'history', target: 'failed' },
      },
    },
    deleting: {
      invoke: {
        src: 'delete',
        input: ({ context }): DeleteStep => ({ ...runcInput({ context }), life: context.life }),
        onDone: {
          target: 'deleted',
          actions: assign(({ event }) => ({ answer: { status: event.output } })),
        },
        onError: { target: 'alive.lastKnown', actions: 'refuse' },
      },
    },
    recovering: {
      exit: assign({ interruption: undefined }),
      invoke: {
        src: 'recover',
        input: ({ context }): ContainerInput => ({
          container: context.container,
          ...(context.interruption ? { interruption: context.interruption } : {}),
        }),
        onDone: [
          { guard: 'foundCreated', target: 'alive.created' },
          { guard: 'foundRunning', target: 'alive.running', actions: 'keepAwaitedResume' },
          { guard: 'foundPaused', target: 'alive.paused' },
          { guard: 'foundCheckpointed', target: 'alive.checkpointed' },
          { guard: 'foundStopped', target: 'alive.stopped' },
          { guard: 'foundHeld', target: 'alive.restored' },
          { target: 'alive.failed' },
        ],
        onError: { target: 'alive.failed', actions: 'refuse' },
      },
    },
    deleted: { tags: 'resting', type: 'final' },
  },
});
