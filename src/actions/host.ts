import type { Logger } from 'pino';
import type { HostConfig } from './host-config.ts';
import type { Watch } from './watch.ts';

/** What every action may use of the host it runs on. */
export interface Host {
  readonly config: HostConfig;
  /** The runc that does the work. */
  readonly realRunc: string;
  /** The environment that the caller gave the wrapper, for the programs it runs in turn. */
  readonly env: NodeJS.ProcessEnv;
  /** The caller's soft limit of open files, which Node raises for itself; undefined where it is not known. */
  readonly openFilesLimit: string | undefined;
  readonly log: Logger;
  /** Where Tardis is installed: the directory above its bin; undefined where it was not started by its launcher. */
  readonly home?: string | undefined;
  /** What bounds the time that the programs may take; undefined where nobody is frozen meanwhile. */
  readonly watch?: Watch | undefined;
  /** Descriptors with a lock on them (the container's, a slot's), for whoever works for this wrapper and may outlive it. */
  readonly locks?: readonly number[];
}

/** Where programs are looked for that work past the caller's environment. */
export const searchPathOf = ({ env }: Pick<Host, 'env'>): string =>
  env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin';
