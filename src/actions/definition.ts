import fs from 'node:fs';
import { join } from 'node:path';
import { Problem, reasonOf } from './problem.ts';
import * as z from './schema.ts';

const words = z.nullish(z.array(z.string()));
const rlimit = z.object({ type: z.string(), soft: z.number(), hard: z.number() });

/** What of an OCI `config.json` confines a container, or names it (runtime-spec, config.md, config-linux.md). */
const schema = z.object({
  hostname: z.nullish(z.string()),
  domainname: z.nullish(z.string()),
  root: z.object({ readonly: z.nullish(z.boolean()) }),
  process: z.object({
    noNewPrivileges: z.nullish(z.boolean()),
    apparmorProfile: z.nullish(z.string()),
    selinuxLabel: z.nullish(z.string()),
    oomScoreAdj: z.nullish(z.number()),
    rlimits: z.nullish(z.array(rlimit)),
  }),
  mounts: z.nullish(z.array(z.object({ destination: z.string(), options: words }))),
  linux: z.nullish(
    z.object({
      namespaces: z.nullish(z.array(z.object({ type: z.string(), path: z.nullish(z.string()) }))),
      maskedPaths: words,
      readonlyPaths: words,
      seccomp: z.nullish(
        z.object({
          defaultAction: z.string(),
          syscalls: z.nullish(z.array(z.object({ names: z.array(z.string()), action: z.string() }))),
        }),
      ),
    }),
  ),
});

/** How a container is confined and named, of its definition. */
export type Definition = z.infer<typeof schema>;

/**
 * Reads the definition of a container: that of its bundle, or that of the container that an image was made of (`spec.dump`).
 *
 * @throws Problem `container-config` where it is not one.
 */
export function readDefinition(text: string): Definition {
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    const why = error instanceof z.$ZodError ? z.prettifyError(error) : reasonOf(error);
    throw new Problem('container-config', `cannot understand a container's config.json: ${reasonOf(why)}`, {
      cause: error,
    });
  }
}

/** The definition of the container that an image was made of. */
export const definitionIn = (image: string): Definition =>
  readDefinition(fs.readFileSync(join(image, 'spec.dump'), 'utf8'));

/**
 * What a new container's definition forbids that the dumped one's allowed, and that nobody can forbid a process from outside: a
 * restored job has the system call filter, the mounts, and the security labels of its image.
 *
 * @returns one line each; none where the job may go on.
 */
export function stricterThan(old: Definition, now: Definition): string[] {
  return [
    ...(now.process.noNewPrivileges && !old.process.noNewPrivileges
      ? ['process.noNewPrivileges is set']
      : []),
    ...differing('process.apparmorProfile', old.process.apparmorProfile, now.process.apparmorProfile),
    ...differing('process.selinuxLabel', domainOf(old), domainOf(now)),
    ...(now.root.readonly && !old.root.readonly ? ['root.readonly is set'] : []),
    ...added('linux.maskedPaths has', old.linux?.maskedPaths, there(now.linux?.maskedPaths)),
    ...added('linux.readonlyPaths has', old.linux?.readonlyPaths, there(now.linux?.readonlyPaths)),
    ...mountOptions.flatMap((option) =>
      added(`mounts have the option ${option} at`, mountsWith(old, option), mountsWith(now, option)),
    ),
    ...stricterSeccomp(old, now),
  ];
}

/** An SELinux label without its level: engines choose categories at random for each container. */
const domainOf = ({ process }: Definition): string | undefined =>
  process.selinuxLabel?.split(':').slice(0, 3).join(':');

/** A profile that confines, other than the one that the job has. */
function differing(name: string, old: string | null | undefined, now: string | null | undefined): string[] {
  if (!now || now === 'unconfined' || now === old) return [];
  return [`${name} is ${JSON.stringify(now)}, and was ${old ? JSON.stringify(old) : 'not set'}`];
}

function added(what: string, old: Words, now: Words): string[] {
  const known = new Set(old ?? []);
  const more = (now ?? []).filter((word) => !known.has(word));
  return more.length === 0 ? [] : [`${what} ${more.join(', ')}`];
}

/** runc passes over a path that is not there; those of /proc and /sys are the host's. */
const there = (paths: Words): string[] =>
  (paths ?? []).filter((path) => !/^\/(proc|sys)\//.test(path) || fs.existsSync(path));

type Words = readonly string[] | null | undefined;

/** Options of a mount by which it allows less (mount(8)). */
const mountOptions = ['ro', 'noexec', 'nosuid', 'nodev'];

const mountsWith = ({ mounts }: Definition, option: string): string[] =>
  (mounts ?? [])
    // `rro` and the like are for all that is mounted below as well (mount(8), recursive attributes).
    .filter(({ options }) => (options ?? []).some((word) => word === option || word === `r${option}`))
    .map(({ destination }) => destination);

/** Actions of a filter under which a system call is made (seccomp(2)). */
const allows = (action: string): boolean => /^SCMP_ACT_(ALLOW|LOG|TRACE|NOTIFY)$/.test(action);

/** System calls that the new filter forbids and the old one allowed, as far as their names tell. */
function stricterSeccomp(old: Definition, now: Definition): string[] {
  const [before, after] = [filterOf(old), filterOf(now)];
  const names = new Set([...before.rules.keys(), ...after.rules.keys()]);
  const may = ({ rules, fallback }: Filter, name: string): boolean => rules.get(name) ?? fallback;
  const forbidden = [...names].filter((name) => may(before, name) && !may(after, name)).sort();
  if (before.fallback && !after.fallback) return ['linux.seccomp allows only what it names'];
  if (forbidden.length === 0) return [];
  const more = forbidden.length > 5 ? ` and ${forbidden.length - 5} more` : '';
  return [`linux.seccomp forbids ${forbidden.slice(0, 5).join(', ')}${more}`];
}

interface Filter {
  /** Whether a system call is allowed, by its name, at least with some arguments. */
  readonly rules: ReadonlyMap<string, boolean>;
  /** Whether all others are. */
  readonly fallback: boolean;
}

function filterOf({ linux }: Definition): Filter {
  const rules = new Map<string, boolean>();
  for (const { names, action } of linux?.seccomp?.syscalls ?? [])
    for (const name of names) rules.set(name, (rules.get(name) ?? false) || allows(action));
  return { rules, fallback: allows(linux?.seccomp?.defaultAction ?? 'SCMP_ACT_ALLOW') };
}
