import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { projectRoot } from './paths.ts';
import { type Stack, type StackOptions, startStack } from './stack.ts';
import { waitFor } from './wait.ts';

/** A program that stands before another one, and stops where a test wants to look at the host. */
export type Gate = {
  path: string;
  /** From now on, calls with one of these words among their arguments stop, one at a time. */
  stopAt(...words: string[]): void;
  /** Waits until a call has stopped at this word. */
  stopped(word: string): Promise<void>;
  /** Lets the call that has stopped go on. */
  pass(): void;
  /** From now on nothing stops; a call that has goes on. */
  open(): void;
};

/** Puts a gate before `program`, into `dir`; it is open at first. */
export function installGate(dir: string, name: string, program: string): Gate {
  const path = join(dir, `gate-${name}`);
  const words = `${path}.words`;
  const held = `${path}.held`;
  const script = `#!/bin/sh
for word do
  if [ -r ${words} ] && grep -qxFe "$word" ${words}; then
    echo "$word" >${held}.new && mv ${held}.new ${held}
    while [ -e ${held} ]; do sleep 0.02; done
    break
  fi
done
exec ${program} "$@"
`;
  writeFileSync(path, script, { mode: 0o755 });
  return {
    path,
    stopAt: (...all) => writeFileSync(words, all.map((word) => `${word}\n`).join('')),
    stopped: async (word) => {
      await waitFor(`${name} to be called with ${word}`, () => readFileSync(held, 'utf8') === `${word}\n`, {
        timeoutMs: 60_000,
      });
    },
    pass: () => rmSync(held),
    open: () => {
      rmSync(words, { force: true });
      rmSync(held, { force: true });
    },
  };
}

/** Puts a gate between Tardis and the real runc of a stack. */
export function gateBeforeRunc(stack: Stack): Gate {
  const config = JSON.parse(readFileSync(stack.configFile, 'utf8')) as { realRunc: string };
  const gate = installGate(stack.dir, 'runc', config.realRunc);
  writeFileSync(stack.configFile, JSON.stringify({ ...config, realRunc: gate.path }, null, 2));
  return gate;
}

/** A stack with Docker whose runtime is behind a gate. */
export type GatedStack = { stack: Stack; gate: Gate; stop(): Promise<void> };

/** Starts one; whoever has it ends it by its own `stop`. */
export async function startGatedStack(options: StackOptions = {}): Promise<GatedStack> {
  const dir = mkdtempSync(join(tmpdir(), 'tardis-gate-'));
  const tidy = () => rmSync(dir, { recursive: true, force: true });
  try {
    const gate = installGate(dir, 'tardis', join(projectRoot, 'bin/tardis-runc'));
    const stack = await startStack({ ...options, docker: true, runtime: gate.path });
    return { stack, gate, stop: () => stack.stop().finally(tidy) };
  } catch (error) {
    tidy();
    throw error;
  }
}
