import type { Engine } from './engine.ts';
import { ctrEngine } from './engine-ctr.ts';
import { dockerEngine } from './engine-docker.ts';
import type { Stack } from './stack.ts';

/** Every way to run containers, for tests that are written once for all of them. */
export const engines: Record<Engine['name'], (stack: Stack) => Engine> = {
  ctr: ctrEngine,
  docker: dockerEngine,
};

export const engineNames = Object.keys(engines) as Engine['name'][];
