import fs from 'node:fs';
import { execa } from 'execa';
import type { Definition } from './definition.ts';
import { type Host, searchPathOf } from './host.ts';
import { Problem, reasonOf } from './problem.ts';
import { textOf } from './read-or-nothing.ts';

/**
 * Puts into force, while a restored job is held, what its new container's definition says otherwise than the one that it was
 * dumped in: host name, resource limits, and what the kernel kills first when memory is short. Limits of cgroups are runc's to set.
 *
 * @param init the container's first process, of {@link pids}; all in the host's pid namespace.
 * @throws Problem `definition` where a limit cannot be lowered.
 */
export async function putInForce(
  host: Host,
  { init, pids }: { readonly init: number; readonly pids: readonly number[] },
  old: Definition,
  now: Definition,
): Promise<void> {
  await setNames(host, init, now);
  setOomScores(host, pids, old, now);
  await setLimits(host, pids, old, now);
}

/** The job's UTS namespace has the names that it was dumped with, and its /etc/hostname those of the new container. */
async function setNames(
  host: Host,
  init: number,
  { hostname, domainname, linux }: Definition,
): Promise<void> {
  const isOwn = (linux?.namespaces ?? []).some(({ type, path }) => type === 'uts' && !path);
  if (!isOwn || !(hostname || domainname)) return;
  const script =
    'cd /proc/sys/kernel; for name in hostname domainname; do [ -z "$1" ] || printf %s "$1" >$name; shift; done';
  const words = [`--uts=/proc/${init}/ns/uts`, 'sh', '-ec', script, 'sh', hostname ?? '', domainname ?? ''];
  const { exitCode, stderr } = await execa('nsenter', words, inHost(host));
  if (exitCode !== 0) host.log.warn(`the restored job keeps its old host name: ${stderr}`);
}

const inHost = (host: Host) =>
  ({ stdin: 'ignore', env: { PATH: searchPathOf(host) }, extendEnv: false, reject: false }) as const;

function setOomScores({ log }: Host, pids: readonly number[], old: Definition, now: Definition): void {
  const wanted = now.process.oomScoreAdj ?? undefined;
  const before = old.process.oomScoreAdj ?? undefined;
  if (wanted === undefined || wanted === before) return;
  for (const pid of pids) {
    const file = `/proc/${pid}/oom_score_adj`;
    if (before !== undefined && Number(textOf(file)) !== before) continue;
    try {
      fs.writeFileSync(file, String(wanted));
    } catch (error) {
      // Lowering it takes CAP_SYS_RESOURCE (proc_pid_oom_score_adj(5)).
      log.warn(
        { pid, reason: reasonOf(error) },
        `oom_score_adj ${wanted} of the new definition is not in force`,
      );
    }
  }
}

type Limit = NonNullable<Definition['process']['rlimits']>[number];

async function setLimits(
  host: Host,
  pids: readonly number[],
  old: Definition,
  now: Definition,
): Promise<void> {
  const before = new Map((old.process.rlimits ?? []).map((limit) => [limit.type, limit]));
  const changed = (now.process.rlimits ?? []).filter((limit) => !isSame(limit, before.get(limit.type)));
  if (changed.length === 0) return;
  for (const pid of pids) {
    const has = await limitsOf(host, pid);
    for (const limit of changed) {
      const current = has.get(nameOf(limit));
      if (!current) continue;
      const was = before.get(limit.type);
      const isOwn = was && !isSame(current, was);
      const wanted = isOwn ? { ...limit, ...lowerOf(current, limit) } : limit;
      if (!isSame(wanted, current)) await setLimit(host, pid, wanted, current);
    }
  }
}

/** prlimit(1) leaves the prefix out. */
const nameOf = ({ type }: Pick<Limit, 'type'>): string => type.replace(/^RLIMIT_/, '');

const isSame = (one: Bounds, other: Bounds | undefined): boolean =>
  other !== undefined && sized(one.soft) === sized(other.soft) && sized(one.hard) === sized(other.hard);

/** A process that has moved its own limit, as Go's and Java's do at their start, keeps that as far as it may. */
const lowerOf = (one: Bounds, other: Bounds): Bounds => ({
  soft: Math.min(sized(one.soft), sized(other.soft)),
  hard: Math.min(sized(one.hard), sized(other.hard)),
});

type Bounds = Pick<Limit, 'soft' | 'hard'>;

/** RLIM_INFINITY (getrlimit(2)), of which JSON's numbers may miss the last digits. */
const sized = (value: number): number => (value >= 2 ** 63 ? Number.POSITIVE_INFINITY : value);

async function limitsOf(host: Host, pid: number): Promise<ReadonlyMap<string, Bounds>> {
  const words = [`--pid=${pid}`, '--raw', '--noheadings', '--output=RESOURCE,SOFT,HARD'];
  const { stdout } = await execa('prlimit', words, inHost(host));
  const number = (word = ''): number => (word === 'unlimited' ? Number.POSITIVE_INFINITY : Number(word));
  return new Map(
    String(stdout)
      .split('\n')
      .map((line) => line.split(/\s+/))
      .map(([name = '', soft, hard]) => [name, { soft: number(soft), hard: number(hard) }]),
  );
}

async function setLimit(host: Host, pid: number, limit: Limit, current: Bounds): Promise<void> {
  const word = (value: number): string =>
    sized(value) === Number.POSITIVE_INFINITY ? 'unlimited' : String(value);
  const name = nameOf(limit).toLowerCase();
  const flag = `--${name}=${word(limit.soft)}:${word(limit.hard)}`;
  const { exitCode, stderr } = await execa('prlimit', [`--pid=${pid}`, flag], inHost(host));
  if (exitCode === 0) return;
  const words = `the limit ${limit.type} of the new definition (${word(limit.soft)}, ${word(limit.hard)}) cannot be set: ${stderr}`;
  const isLower = sized(limit.soft) < current.soft || sized(limit.hard) < current.hard;
  if (isLower) throw new Problem('definition', words);
  host.log.warn({ pid }, words);
}
