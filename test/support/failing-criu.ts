import { copyFileSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fixturesDir, whichOrThrow } from './paths.ts';
import type { Stack } from './stack.ts';

/** When the fake criu acts: under `runc checkpoint`, under `runc restore`, or always. */
type When = 'checkpoint' | 'restore' | 'any';

export type FailingCriu = {
  /** From now on criu fails; `nth` as in test/fixtures/failing-criu: 1 the version check, 2 the work itself. */
  fail(when: When, nth?: number): void;
  /** From now on criu stops before it begins, until {@link FailingCriu.behave}. */
  hang(when: When, nth?: number): void;
  /** From now on criu sleeps for good, and uses no CPU. */
  sleep(when: When, nth?: number): void;
  /** From now on criu takes nine seconds longer, and does a little all the time. */
  slow(when: When, nth?: number): void;
  /** Has a hanging criu been reached? */
  reached(): boolean;
  /** From now on it is the real criu again. */
  behave(): void;
};

/** Puts a criu that can be told to fail before the real one, for this stack; it behaves until told otherwise. */
export function installFailingCriu(stack: Stack): FailingCriu {
  const file = (name: string) => join(stack.binDir, name);
  // Not this one, should it have been installed before.
  const elsewhere = (stack.env.PATH ?? '').split(delimiter).filter((dir) => dir !== stack.binDir);
  writeFileSync(file('criu.real'), `${whichOrThrow('criu', elsewhere.join(delimiter))}\n`);
  copyFileSync(join(fixturesDir, 'failing-criu'), file('criu'));
  const tell = (order: string, when: When, nth: number) => {
    rmSync(file('criu.reached'), { force: true });
    rmSync(file('criu.calls'), { force: true });
    writeFileSync(file('criu.switch'), `${order} ${when} ${nth}\n`);
  };
  return {
    fail: (when, nth = 2) => tell('fail', when, nth),
    hang: (when, nth = 2) => tell('hang', when, nth),
    sleep: (when, nth = 2) => tell('sleep', when, nth),
    slow: (when, nth = 2) => tell('slow', when, nth),
    reached: () => existsSync(file('criu.reached')),
    behave: () => rmSync(file('criu.switch'), { force: true }),
  };
}
