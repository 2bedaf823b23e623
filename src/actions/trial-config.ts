import { isBind } from './container-config.ts';

/** JSON.rawJSON and a reviver's `source` (ECMAScript, "JSON.parse source text access"): Node 24 has them. */
const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };
type Reviver = (this: unknown, key: string, value: unknown, context: { source?: string }) => unknown;

interface OciMount {
  readonly destination: string;
  readonly type?: string;
  readonly source?: string;
  readonly options?: readonly string[] | null;
}

/** What a trial's configuration changes of an OCI one; all else is handed on as it is. */
interface OciConfig {
  readonly root: object;
  readonly hooks?: unknown;
  readonly mounts?: readonly OciMount[] | null;
  readonly linux?: {
    readonly namespaces?: readonly { readonly type: string; readonly path?: string }[] | null;
    readonly resources?: { readonly devices?: unknown; readonly memory?: unknown } | null;
    readonly intelRdt?: unknown;
  } | null;
}

export interface TrialWish {
  /** The copy's own cgroup. */
  readonly cgroupsPath: string;
  /** What is shown to the copy in place of a path of the host's that the container has mounted; may be that path. */
  readonly standInFor: (source: string) => string;
}

/** A configuration's bind mounts, as it has them. */
export const bindMountsOf = (text: string): { readonly source: string; readonly destination: string }[] =>
  ((JSON.parse(text) as OciConfig).mounts ?? [])
    .filter(isBind)
    .flatMap(({ source, destination }) => (source === undefined ? [] : [{ source, destination }]));

/**
 * Rewrites a container's config.json for a copy of it beside it, which shares nothing with it that either could change:
 *
 * - its root file system is the trial bundle's own `rootfs`, and bind mounts show their stand-ins;
 * - a network that the container joins (a CNI's) is the one that the trial's programs are in; one that it shares with the
 *   host is theirs in any case;
 * - it has a cgroup of its own, with what decides whether CRIU succeeds: the devices and the memory that are allowed.
 *   Shares of a CPU would only make the job wait longer;
 * - the engine's hooks are not run: they set up networks and devices for the container.
 *
 * Numbers stay as they are written: `RLIM_INFINITY` is no number of JavaScript's.
 */
export function trialConfigOf(text: string, { cgroupsPath, standInFor }: TrialWish): string {
  const exact: Reviver = (_, value, { source }) =>
    typeof value === 'number' && source !== undefined && String(value) !== source ? rawJSON(source) : value;
  const { hooks: _hooks, ...config } = JSON.parse(
    text,
    exact as Parameters<typeof JSON.parse>[1],
  ) as OciConfig;
  const { intelRdt: _intelRdt, resources, namespaces, ...linux } = config.linux ?? {};
  const { devices, memory } = resources ?? {};
  return JSON.stringify({
    ...config,
    root: { ...config.root, path: 'rootfs' },
    mounts: (config.mounts ?? []).map((mount) =>
      isBind(mount) && mount.source !== undefined ? { ...mount, source: standInFor(mount.source) } : mount,
    ),
    linux: {
      ...linux,
      cgroupsPath,
      namespaces: (namespaces ?? []).map(({ type, path }) => ({
        type,
        ...(path && type in ownNamespaces ? { path: ownNamespaces[type as keyof typeof ownNamespaces] } : {}),
      })),
      resources: { ...(devices ? { devices } : {}), ...(memory ? { memory } : {}) },
    },
  });
}

/** A namespace that runc has CRIU restore into where it is named by a path (criu_linux.go); CRIU makes the others anew. */
const ownNamespaces = { network: '/proc/self/ns/net' } as const;
