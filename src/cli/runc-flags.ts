/*
 * Every command and flag of runc 1.1 to 1.3, as its sources declare them (main.go, create.go, ...), hidden ones
 * included; compared with `--help` of runc 1.1.5 and 1.3.6. A flag of a newer runc is missing on purpose until
 * someone has asked what it changes for Tardis: `create --config`, say, moves the config.json that holds the
 * settings. A flag that is not here makes the whole command line one for the real runc.
 */

/** One flag: all its spellings, the canonical one first, and whether a value follows it. */
export interface FlagSpec {
  readonly names: readonly [canonical: string, ...aliases: string[]];
  readonly takesValue: boolean;
}

/** One subcommand: its flags, and how its positionals are to be read. */
export interface SubcommandSpec {
  readonly flags: readonly FlagSpec[];
  /** The first positional is a container id. */
  readonly takesId: boolean;
  /**
   * The first positional ends the flags, because the rest is somebody else's command line: `SkipArgReorder` in
   * runc's exec.go and ps.go. Every other command accepts flags after the id as well.
   */
  readonly stopsAtFirstPositional: boolean;
}

const valued = (...names: FlagSpec['names']): FlagSpec => ({ names, takesValue: true });
const toggle = (...names: FlagSpec['names']): FlagSpec => ({ names, takesValue: false });

// urfave/cli v1 adds --help to the program and to every command, --version to the program alone.
const help = toggle('help', 'h');

const onContainer = (...flags: FlagSpec[]): SubcommandSpec => ({
  flags: [...flags, help],
  takesId: true,
  stopsAtFirstPositional: false,
});
const onContainerThenCommand = (...flags: FlagSpec[]): SubcommandSpec => ({
  ...onContainer(...flags),
  stopsAtFirstPositional: true,
});
const withoutContainer = (...flags: FlagSpec[]): SubcommandSpec => ({
  ...onContainer(...flags),
  takesId: false,
});

/** The flags that stand before the subcommand. */
export const globalFlags: readonly FlagSpec[] = [
  toggle('debug'),
  valued('log'),
  valued('log-format'),
  valued('root'),
  valued('criu'), // hidden and ignored after 1.1
  toggle('systemd-cgroup'),
  valued('rootless'),
  help,
  toggle('version', 'v'),
];

/** The subcommands by name. */
export const subcommands = {
  checkpoint: onContainer(
    valued('image-path'),
    valued('work-path'),
    valued('parent-path'),
    toggle('leave-running'),
    toggle('tcp-established'),
    toggle('tcp-skip-in-flight'), // after 1.1
    toggle('link-remap'), // after 1.1
    toggle('ext-unix-sk'),
    toggle('shell-job'),
    toggle('lazy-pages'),
    valued('status-fd'),
    valued('page-server'),
    toggle('file-locks'),
    toggle('pre-dump'),
    valued('manage-cgroups-mode'),
    valued('empty-ns'),
    toggle('auto-dedup'),
  ),
  create: onContainer(
    valued('bundle', 'b'),
    valued('console-socket'),
    valued('pidfd-socket'), // after 1.1
    valued('pid-file'),
    toggle('no-pivot'),
    toggle('no-new-keyring'),
    valued('preserve-fds'),
  ),
  delete: onContainer(toggle('force', 'f')),
  events: onContainer(valued('interval'), toggle('stats')),
  exec: onContainerThenCommand(
    valued('console-socket'),
    valued('pidfd-socket'), // after 1.1
    valued('cwd'),
    valued('env', 'e'),
    toggle('tty', 't'),
    valued('user', 'u'),
    valued('additional-gids', 'g'),
    valued('process', 'p'),
    toggle('detach', 'd'),
    valued('pid-file'),
    valued('process-label'),
    valued('apparmor'),
    toggle('no-new-privs'),
    valued('cap', 'c'),
    valued('preserve-fds'),
    valued('cgroup'),
    toggle('ignore-paused'),
  ),
  features: withoutContainer(),
  help: withoutContainer(),
  kill: onContainer(toggle('all', 'a')), // hidden after 1.1
  list: withoutContainer(valued('format', 'f'), toggle('quiet', 'q')),
  pause: onContainer(),
  ps: onContainerThenCommand(valued('format', 'f')),
  restore: onContainer(
    valued('console-socket'),
    valued('image-path'),
    valued('work-path'),
    toggle('tcp-established'),
    toggle('ext-unix-sk'),
    toggle('shell-job'),
    toggle('file-locks'),
    valued('manage-cgroups-mode'),
    valued('bundle', 'b'),
    toggle('detach', 'd'),
    valued('pid-file'),
    toggle('no-subreaper'),
    toggle('no-pivot'),
    valued('empty-ns'),
    toggle('auto-dedup'),
    toggle('lazy-pages'),
    valued('lsm-profile'),
    valued('lsm-mount-context'),
  ),
  resume: onContainer(),
  run: onContainer(
    valued('bundle', 'b'),
    valued('console-socket'),
    valued('pidfd-socket'), // after 1.1
    toggle('detach', 'd'),
    toggle('keep'),
    valued('pid-file'),
    toggle('no-subreaper'),
    toggle('no-pivot'),
    toggle('no-new-keyring'),
    valued('preserve-fds'),
  ),
  spec: withoutContainer(valued('bundle', 'b'), toggle('rootless')),
  start: onContainer(),
  state: onContainer(),
  update: onContainer(
    valued('resources', 'r'),
    valued('blkio-weight'),
    valued('cpu-period'),
    valued('cpu-quota'),
    valued('cpu-burst'), // after 1.1
    valued('cpu-share'),
    valued('cpu-rt-period'),
    valued('cpu-rt-runtime'),
    valued('cpuset-cpus'),
    valued('cpuset-mems'),
    valued('kernel-memory'), // hidden
    valued('kernel-memory-tcp'), // hidden
    valued('memory'),
    valued('cpu-idle'), // after 1.1
    valued('memory-reservation'),
    valued('memory-swap'),
    valued('pids-limit'),
    valued('l3-cache-schema'),
    valued('mem-bw-schema'),
  ),
} satisfies Record<string, SubcommandSpec>;

export type SubcommandName = keyof typeof subcommands;

/** The subcommand that a word names, if any; `h` is urfave/cli's short form of `help`. */
export function subcommandNamed(word: string): SubcommandName | undefined {
  if (word === 'h') return 'help';
  return Object.hasOwn(subcommands, word) ? (word as SubcommandName) : undefined;
}

/** The flag that a spelling (without its dashes) names, if any. */
export function flagNamed(flags: readonly FlagSpec[], spelling: string): FlagSpec | undefined {
  return flags.find((flag) => flag.names.includes(spelling));
}
