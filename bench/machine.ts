import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { run } from '../test/support/run.ts';

/** Where something was measured, and with which programs. */
export type Machine = {
  when: string;
  cpu: string;
  cores: number;
  memoryGiB: number;
  kernel: string;
  versions: string[];
};

export async function thisMachine(): Promise<Machine> {
  const first = async (program: string, ...args: string[]): Promise<string> => {
    const { stdout, stderr, exitCode } = await run(program, args, { mayFail: true });
    return exitCode === 0 ? (`${stdout}\n${stderr}`.trim().split('\n')[0] ?? '') : `${program}: none`;
  };
  const asked = [
    ['runc', '--version'],
    ['criu', '--version'],
    ['containerd', '--version'],
    ['podman', '--version'],
    ['hyperfine', '--version'],
  ] as const;
  const versions = await Promise.all(asked.map(([program, flag]) => first(program, flag)));
  return {
    when: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0]?.model ?? modelIn(readFileSync('/proc/cpuinfo', 'utf8')),
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    versions: [
      ...versions.map((version) => version.replace(/ github\.com\S*| [0-9a-f]{40}$/g, '')),
      `Node ${process.version}`,
    ],
  };
}

const modelIn = (cpuinfo: string): string => /^model name\s*: (.*)$/m.exec(cpuinfo)?.[1] ?? 'unknown';
