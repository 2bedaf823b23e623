import type {
  Answer,
  CheckpointRequest,
  ContainerIdentity,
  Failure,
  ImagePlace,
  Life,
  ObservedStatus,
  RuncCall,
  Shim,
} from './vocabulary.ts';

/** A runc command that the caller gave, to be run with its own argv, environment, and standard streams. */
export interface RuncStep {
  readonly container: ContainerIdentity;
  readonly call: RuncCall;
}

/** A `delete`, of a container that may carry its job on. */
export interface DeleteStep extends RuncStep {
  readonly life: Life | undefined;
}

/** A step in whose middle a wrapper died, as its state file tells it. */
export interface Interruption {
  /** The state's path, such as `checkpointing`. */
  readonly state: string;
  /** The child machine's state and context, where there was one. */
  readonly step?: string;
  readonly child?: unknown;
}

export type ContainerEvent =
  | { readonly type: 'CREATE'; readonly call: RuncCall }
  | { readonly type: 'RESTORE'; readonly call: RuncCall; readonly detach: boolean }
  | { readonly type: 'RUN'; readonly call: RuncCall; readonly detach: boolean }
  | { readonly type: 'START'; readonly call: RuncCall }
  | { readonly type: 'PAUSE'; readonly call: RuncCall }
  | { readonly type: 'RESUME'; readonly call: RuncCall }
  | { readonly type: 'KILL'; readonly call: RuncCall }
  | { readonly type: 'DELETE'; readonly call: RuncCall }
  | { readonly type: 'CHECKPOINT'; readonly call: RuncCall; readonly request: CheckpointRequest }
  /** What runc says of the container, where it may have moved on without Tardis. */
  | { readonly type: 'OBSERVED'; readonly status: ObservedStatus };

export interface ContainerInput {
  readonly container: ContainerIdentity;
  readonly interruption?: Interruption | undefined;
  /** The image that an interrupted container had been restored from, or had made. */
  readonly image?: ImagePlace | undefined;
  /** Undefined before a container is made, and where the place of the images was out of reach then. */
  readonly life?: Life | undefined;
}

export interface ContainerContext extends ContainerInput {
  /** The latest command line. */
  readonly call: RuncCall;
  readonly request?: CheckpointRequest;
  /** `run`: once created or restored, the container starts without a `start`. */
  readonly startsAtOnce: boolean;
  /** Whether the container was paused when its latest checkpoint was asked for. */
  readonly wasPaused: boolean;
  /** The shim whose pause it was that the container is in: an engine pauses before it asks for a checkpoint. */
  readonly pausedBy?: Shim | undefined;
  /** Whether the container was paused for its latest checkpoint alone: it runs on when that is over. */
  readonly pausedForCheckpoint: boolean;
  /** Whether the engine takes the container for paused still, and will send a `resume` to one that runs. */
  readonly awaitsResume: boolean;
  /** What is to be tried where {@link image} is refused. */
  readonly fallbacks: readonly ImagePlace[];
  readonly answer: Answer;
  /** Why the latest checkpoint, restore, or command failed. */
  readonly failure?: Failure | undefined;
}

/** What {@link ContainerEvent} `OBSERVED` and a recovery find. */
export type Recovered = {
  readonly status: ObservedStatus | 'checkpointed' | 'restored';
  readonly note: string;
  /** See {@link ContainerContext}. */
  readonly awaitsResume?: boolean;
};

/** runc has printed and logged its own words where the failure carries its status: only that is left to answer. */
export const answerFailure = (failure: Failure): Partial<ContainerContext> => ({
  failure,
  answer: {
    status: failure.status ?? 1,
    ...(failure.status === undefined ? { message: failure.message } : {}),
  },
});

/** An engine asks for the checkpoint as soon as it has paused; a host under load may start it late. */
const pauseMs = 5_000;

/**
 * Whether a pause belongs to a checkpoint: it came from the same shim just before. containerd's client pauses, asks for
 * the checkpoint, and resumes (containerd, task.go). An operator's pause through the same shim cannot be told from that: one
 * that is followed by a checkpoint within seconds is undone.
 */
export const isPauseForCheckpoint = (pausedBy: Shim | undefined, by: Shim | undefined): boolean =>
  pausedBy !== undefined && by !== undefined && isSameShim(pausedBy, by) && by.at - pausedBy.at <= pauseMs;

export const isSameShim = (one: Shim | undefined, other: Shim | undefined): boolean =>
  one !== undefined && one.pid === other?.pid && one.startTime === other.startTime;

/** What a command leaves in the context. */
export const commandOf = (event: ContainerEvent): Partial<ContainerContext> => ({
  ...('call' in event ? { call: event.call } : {}),
  ...(event.type === 'CHECKPOINT' ? { request: event.request } : {}),
  startsAtOnce: event.type === 'RUN',
  wasPaused: false,
  // A signal may come at any time, and changes nothing of who waits for what.
  ...(event.type === 'KILL'
    ? {}
    : {
        pausedBy: event.type === 'PAUSE' ? event.call.shim : undefined,
        pausedForCheckpoint: false,
        awaitsResume: false,
      }),
  // A start or a signal does not make forgotten why the restore before it was rolled back.
  ...(event.type === 'CHECKPOINT' ? { failure: undefined } : {}),
  answer: { status: 0 },
});
