import { enabled } from './jobs.ts';

/** How long a job of torture rests between two numbers. */
export const tickMs = 200;

/** What one kind of job does, and how it comes to an end. */
export type JobKind = {
  name: string;
  script: string;
  env?: Record<string, string>;
  /** Whether SIGTERM ends it; the first process of a pid namespace is spared where it has no handler (signal(7)). */
  endsAtTerm?: boolean;
  /** Whether it ends by itself, after some time. */
  ends?: boolean;
  /** Whether it is resumed even then. */
  resumesAlways?: boolean;
};

/**
 * Counts in memory and in two files at once, and says so where they do not agree: the one is rewritten, the other grows.
 * What the first one held before the job began shows whether a root file system was put back.
 */
const step = `found=nothing; [ -e /count ] && read -r found </count; echo "found $found"
i=0; echo 0 >/count; : >/all
step() {
  read -r was </count
  [ "$was" = "$i" ] || echo "broken: $i in memory, $was in the file"
  i=$((i+1)); echo $i >/count; echo $i >>/all
  if [ $((i % 8)) = 0 ]; then
    lines=$(wc -l </all)
    [ "$lines" = "$i" ] || echo "broken: $i in memory, $lines lines in the file that grows"
  fi
  echo "tick $i"
}`;
const pause = `sleep ${tickMs / 1000}`;
const forever = `while :; do step; ${pause}; done`;
const until = (last: number) => `while [ $i -lt ${last} ]; do step; ${pause}; done; echo done`;
/** So much memory that a dump takes a moment, and room. */
const large = `x=$(head -c 3000000 /dev/zero | tr '\\0' x)`;

export const jobKinds: readonly JobKind[] = [
  { name: 'counter', script: `${step}\n${large}\n${forever}` },
  { name: 'stopping', script: `trap 'echo stopped; exit 0' TERM\n${step}\n${forever}`, endsAtTerm: true },
  {
    name: 'piped',
    script: `${step}
n=0; while :; do n=$((n+1)); echo $n; ${pause}; done |
  while read -r n; do step; [ "$n" = "$i" ] || echo "broken: $i in memory, $n from the pipe"; done`,
  },
  { name: 'ending', script: `${step}\n${until(60)}`, ends: true },
  {
    name: 'compressed',
    script: `${step}\n${large}\n${forever}`,
    env: { TARDIS_COMPRESSION_LEVEL: '1' },
  },
  {
    name: 'always',
    script: `${step}\n${until(90)}`,
    env: { TARDIS_RESUME_AFTER: 'always' },
    ends: true,
    resumesAlways: true,
  },
];

/** The kind of the job in a place: they take turns. */
export const kindOf = (place: number): JobKind => jobKinds[place % jobKinds.length] as JobKind;

export const specOf = (kind: JobKind, key: string) => ({
  args: ['sh', '-c', kind.script],
  env: enabled(key, kind.env),
});

/** What a job has written. */
export type Written = {
  numbers: number[];
  /** Lines in which it says that its memory and its files do not agree, and numbers that are lost or come twice. */
  broken: string[];
  /** What it found in its file when it began; undefined where it did not begin here. */
  found?: string;
  isDone: boolean;
  isStopped: boolean;
};

export function readOutput(lines: readonly string[]): Written {
  const numbers = lines.flatMap((line) => /^tick (\d+)$/.exec(line)?.[1] ?? []).map(Number);
  const [first = 0] = numbers;
  const at = numbers.findIndex((number, i) => number !== first + i);
  const found = lines.flatMap((line) => /^found (.*)$/.exec(line)?.[1] ?? []).at(-1);
  return {
    numbers,
    broken: [
      ...lines.filter((line) => line.startsWith('broken')),
      ...(at < 0 ? [] : [`broken: ${numbers[at]} came after ${numbers[at - 1]}`]),
    ],
    ...(found === undefined ? {} : { found }),
    isDone: lines.includes('done'),
    isStopped: lines.includes('stopped'),
  };
}
