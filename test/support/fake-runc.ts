import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fixturesDir } from './paths.ts';

/** How the fake runc was called once. */
export type RuncCall = {
  /** Its arguments, without its own name. */
  args: string[];
  env: Record<string, string>;
  cwd: string;
  /** Open file descriptors: what each is, and its open flags (constants.O_NONBLOCK and the like). */
  fds: Map<number, { flags: number; target: string }>;
};

export type FakeRunc = {
  /** The executable. */
  path: string;
  /** All calls so far, oldest first. */
  calls(): RuncCall[];
  /** What it says and how it exits from now on. */
  answer(answer: { status?: number; stdout?: string; stderr?: string }): void;
  remove(): void;
};

/** A runc that records how it is called; see test/fixtures/fake-runc. */
export function fakeRunc(): FakeRunc {
  const dir = mkdtempSync(join(tmpdir(), 'fake-runc-'));
  const path = join(dir, 'runc');
  mkdirSync(join(dir, 'calls'));
  copyFileSync(join(fixturesDir, 'fake-runc'), path);
  return {
    path,
    calls: () =>
      readdirSync(join(dir, 'calls'))
        .sort()
        .map((call) => readCall(join(dir, 'calls', call), path)),
    answer({ status = 0, stdout = '', stderr = '' }) {
      writeFileSync(join(dir, 'status'), `${status}\n`);
      writeFileSync(join(dir, 'stdout'), stdout);
      writeFileSync(join(dir, 'stderr'), stderr);
    },
    remove: () => rmSync(dir, { recursive: true, force: true }),
  };
}

function readCall(call: string, path: string): RuncCall {
  const read = (name: string) => readFileSync(join(call, name), 'utf8');
  const [, , ...args] = read('argv').split('\0').slice(0, -1); // "sh", the script, and then the arguments
  const env = read('env')
    .split('\0')
    .slice(0, -1)
    .map((entry): [string, string] => {
      const at = entry.indexOf('=');
      return [entry.slice(0, at), entry.slice(at + 1)];
    });
  const flagsOf = (fd: number) => {
    const octal = new RegExp(`/${fd}:flags:\\s*(\\d+)$`, 'm').exec(read('flags'))?.[1];
    return Number.parseInt(octal ?? '0', 8);
  };
  const fds = read('fds')
    .split('\n')
    .map((line) => /^(\d+) (.*)$/.exec(line))
    .filter((match) => match !== null)
    .map(([, number, target]) => ({ fd: Number(number), target: target ?? '' }))
    .filter(({ target }) => target !== path) // The shell, reading its script.
    .map(({ fd, target }): [number, { flags: number; target: string }] => [
      fd,
      { flags: flagsOf(fd), target },
    ]);
  return { args, env: Object.fromEntries(env), cwd: read('cwd').trimEnd(), fds: new Map(fds) };
}
