import type { Ran, RunOptions } from './run.ts';
import type { WaitOptions } from './wait.ts';

/** What to run, in words that both engines understand. */
export type ContainerSpec = {
  id: string;
  image: string;
  args: string[];
  env?: Record<string, string>;
  /** `uid` or `uid:gid`. */
  user?: string;
  tty?: boolean;
  /** A network namespace of its own without a way out (default), the host's, or the name of a Docker network. */
  network?: 'none' | 'host' | (string & {});
  /** Bind mounts: source on the host, destination in the container. */
  binds?: { source: string; destination: string; readOnly?: boolean }[];
  /** The runtime under test (default), or the host's plain runc. */
  runtime?: 'tardis' | 'runc';
  /** More flags of `ctr run` or `docker run`, before the image. */
  flags?: string[];
  /** How long the engine may take over it. */
  timeoutMs?: number;
};

export type CheckpointOptions = {
  /** Stop the container with the checkpoint; default: it goes on. */
  exit?: boolean;
  /** Where the engine itself shall put CRIU's files; default: a fresh directory. */
  imagePath?: string;
  mayFail?: boolean;
  /** How long the engine may take over it. */
  timeoutMs?: number;
};

/** One way to run containers: `ctr` or `docker`, so that a test can be written once for both. */
export interface Engine {
  readonly name: 'ctr' | 'docker';
  /** Creates and starts a container. */
  run(spec: ContainerSpec): Promise<Container>;
}

/** A container that an engine has started. */
export interface Container {
  /** The engine's name for it. */
  readonly id: string;
  /** The id that the OCI runtime sees. */
  readonly ociId: string;
  /** The OCI bundle's directory; gone once the container's task is. */
  readonly bundle: string;
  /** runc's `--root` for this engine. */
  readonly runcRoot: string;
  /** Its init, in the host's pid namespace. */
  pid(): Promise<number>;
  status(): Promise<'running' | 'paused' | 'stopped' | 'gone'>;
  /** All that it has written so far; stdout and stderr are two pipes, so their lines may change places. */
  output(): string;
  /** The complete lines of {@link output}, without a terminal's carriage returns. */
  lines(): string[];
  /** The first line that matches, now or later. */
  waitForLine(pattern: RegExp, options?: WaitOptions): Promise<RegExpExecArray>;
  /** Types into its terminal; for containers with `tty` of the `ctr` engine. */
  type(text: string): void;
  exec(args: string[], options?: RunOptions): Promise<Ran>;
  kill(signal: string): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  checkpoint(options?: CheckpointOptions): Promise<Ran & { imagePath: string }>;
  /** Waits until it has stopped; its exit status. */
  waitForExit(options?: WaitOptions): Promise<number>;
  /** Ends it if need be and forgets it, with its root file system. */
  remove(options?: Pick<RunOptions, 'timeoutMs'>): Promise<void>;
}
