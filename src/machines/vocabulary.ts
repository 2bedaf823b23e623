/**
 * The words that the machines, the actions and the command line share. Everything here survives JSON, because
 * it is persisted next to the bundle.
 */

/** Which container this is, and where its things are. */
export interface ContainerIdentity {
  readonly id: string;
  /** runc's `--root`: the directory of runc's own state. */
  readonly root: string;
  readonly bundle: string;
  /** The checkpoint key: what makes two containers the same job. */
  readonly key: string;
  /** Where this job's images live: the directory that holds `<key>/<generation>`. */
  readonly imageRoot: string;
}

/** An error in a form that survives JSON. */
export interface Failure {
  readonly message: string;
  readonly code: string;
  /** runc's own exit status, where a runc command failed. */
  readonly status?: number;
}

/** What the caller of `tardis-runc` is told. */
export interface Answer {
  readonly status: number;
  /** Printed on the first line of stderr; absent where runc has already spoken for itself. */
  readonly message?: string;
}

/** Where an image stands on disk. */
export interface ImagePlace {
  readonly generation: number;
  readonly directory: string;
}

/**
 * A container's place in the life of its job: the epoch in which it carries the job on, or why it must not, because
 * another container does; or why its images could not be reached when it began, so that its first checkpoint decides.
 */
export type Life =
  | {
      readonly epoch: number;
      /** Which claim of that number: a ledger that was removed begins at one again. Absent in older state files. */
      readonly claim?: string | undefined;
    }
  | { readonly refused: string }
  | { readonly unseen: string };

/** An image that is being made: by a container that carries the job on in this epoch. */
export interface ImageInMaking extends ImagePlace {
  readonly epoch: number;
  /** See {@link Life}. */
  readonly claim?: string | undefined;
  /** Where CRIU dumps to, where that is not the image's own directory. */
  readonly dumpDirectory?: string | undefined;
  /** Whether it must have been restored once before it is committed. Absent in older state files. */
  readonly isToBeVerified?: boolean | undefined;
}

/** What a new container starts from. */
export interface TakenUp {
  readonly life: Life;
  /** The images to carry on from, the newest first; none where the job starts from scratch. */
  readonly images: readonly ImagePlace[];
  /** Why the job starts from scratch although it has been carried on before. */
  readonly failure?: Failure;
  /** Whether it must not: the host's settings want the `create` to fail instead. */
  readonly mustFail?: boolean;
}

/** containerd's shim, where it is the caller of a command. */
export interface Shim {
  readonly pid: number;
  /** In clock ticks since boot. */
  readonly startTime: number;
  /** When it called, in milliseconds since the epoch. */
  readonly at: number;
}

/** One command line given to `tardis-runc`, as far as the machines and the actions need it. */
export interface RuncCall {
  /** Verbatim: what the real runc is given where Tardis has nothing to add. */
  readonly argv: readonly string[];
  /** runc's global flags, verbatim, but for `--log` and `--log-format`. */
  readonly globals: readonly string[];
  /** The boolean flags that are on, global or not, by their long names without dashes (`tcp-established`). */
  readonly switches: readonly string[];
  /** Who called, where that is a shim. */
  readonly shim?: Shim | undefined;
  /** Where the caller reads runc's log. */
  readonly log?: { readonly file: string; readonly format: string };
  /** Flags of a `create` or `run` that a restore in its place takes too (`--pid-file`, `--console-socket`, ...). */
  readonly restoreFlags: readonly string[];
}

/** What containerd asked of `checkpoint`. Paths are absolute. */
export interface CheckpointRequest {
  readonly leaveRunning: boolean;
  /** The caller's `--image-path`: it gets CRIU's files, whole. */
  readonly imagePath: string;
  /** The caller's `--work-path`: it gets `dump.log`. */
  readonly workPath?: string;
  /** The caller's other flags, handed to runc as they came (`--tcp-established`, `--file-locks`, ...). */
  readonly flags: readonly string[];
}

/** How runc sees a container, in the OCI runtime specification's words, and `gone` where runc knows none. */
export type ObservedStatus = 'created' | 'running' | 'paused' | 'stopped' | 'gone';

/** A failure's persisted form, of anything thrown. */
export function failureOf(thrown: unknown): Failure {
  if (thrown instanceof Error) {
    const { code, status } = thrown as Error & { code?: unknown; status?: unknown };
    return {
      message: thrown.message,
      code: typeof code === 'string' ? code : thrown.name,
      ...(typeof status === 'number' ? { status } : {}),
    };
  }
  return { message: String(thrown), code: 'unknown' };
}
