import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants, openSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { delimiter, join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { projectRoot, whichOrThrow } from './paths.ts';

/** Reads a stream's lines one by one. */
class Lines {
  readonly #lines: Interface;
  readonly #said: AsyncIterator<string>;

  constructor(input: Readable) {
    this.#lines = createInterface({ input });
    this.#said = this.#lines[Symbol.asyncIterator]();
  }

  async next(): Promise<string> {
    const { value, done } = await this.#said.next();
    return done ? 'ended' : value;
  }

  close(): void {
    this.#lines.close();
  }
}

/** Another process that takes locks, and says when its `flock` begins to wait for one. */
export class OtherWrapper {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #answers: Lines;
  readonly #bell: Socket;
  readonly #waits: Lines;

  /**
   * @param home a new directory, for the `flock` that rings.
   * @param script what it runs: test/support/action-NAME-holder.ts.
   */
  constructor(home: string, script: 'lock' | 'slot', args: string[]) {
    const bell = join(home, 'bell');
    execFileSync('mkfifo', [bell]);
    const real = whichOrThrow('flock');
    writeFileSync(join(home, 'flock'), `#!/bin/sh\necho waits >"${bell}"\nexec "${real}" "$@"\n`, {
      mode: 0o755,
    });
    this.#bell = new Socket({ fd: openSync(bell, constants.O_RDWR | constants.O_NONBLOCK) });
    this.#waits = new Lines(this.#bell);
    const path = join(projectRoot, `test/support/action-${script}-holder.ts`);
    this.#child = spawn(process.execPath, ['--no-warnings', path, ...args], {
      env: { ...process.env, PATH: `${home}${delimiter}${process.env.PATH}` },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#answers = new Lines(this.#child.stdout);
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** Orders what its script knows; does not wait for the answer. */
  order(...words: string[]): void {
    this.#child.stdin.write(`${words.join(' ')}\n`);
  }

  /** Its next answer: the order that it has carried out, or the code of the failure. */
  answer(): Promise<string> {
    return this.#answers.next();
  }

  /** Resolves when it has opened a lock's file and asks the kernel for the lock, so many times since the last call. */
  async asks(times = 1): Promise<void> {
    for (let i = 0; i < times; i++) await this.#waits.next();
  }

  async kill(): Promise<void> {
    const ended = once(this.#child, 'exit');
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGKILL');
      await ended;
    }
    this.#answers.close();
    this.#waits.close();
    this.#bell.destroy();
  }
}
