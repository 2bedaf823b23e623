import type { Host } from './host.ts';
import { Problem } from './problem.ts';

/**
 * Faults on order, for the tests that kill a wrapper at every step: TARDIS_FAULT in the wrapper's environment, such as
 * `before:commitImage:kill`, or several with commas between. Honoured only where the host's own settings file has
 * `faultInjection: true`, which no container and no engine can write.
 *
 * - `before:STEP:WHAT` the state is written, the effect not begun; `after:STEP:WHAT` the effect is done, the machine
 *   does not know it yet; `at:STEP:WHAT` instead of the effect, or at a point inside it, such as `commitImage.renamed`.
 * - WHAT is `kill` (SIGKILL), an errno that the step fails with (`ENOSPC`, `EIO`), or, `at` a step only, `hang`: the
 *   step's runc is stopped before its first instruction, and goes on when somebody continues it.
 */
interface Fault {
  readonly moment: string;
  readonly step: string;
  readonly what: string;
}

let armed: readonly Fault[] = [];
let currentStep: string | undefined;

const form = /^(before|at|after):([\w.]+):(kill|hang|E[A-Z0-9]+)$/;

/**
 * Reads which faults this process is to meet: none, unless the host's settings allow any.
 *
 * @throws Problem `fault` for words that mean nothing: a test must not pass because its fault never came.
 */
export function armFaults({ config, env }: Pick<Host, 'config' | 'env'>): void {
  armed = [];
  if (!config.faultInjection || !env.TARDIS_FAULT) return;
  armed = env.TARDIS_FAULT.split(',').map((words) => {
    const [, moment = '', step = '', what = ''] = form.exec(words) ?? [];
    if (!moment || (what === 'hang' && moment !== 'at'))
      throw new Problem('fault', `TARDIS_FAULT is ${words}: expected before|at|after:STEP:kill|hang|ERRNO`);
    return { moment, step, what };
  });
}

/** Does a step, with the faults that are ordered for it. */
export async function withFaults<Output>(
  step: string,
  effect: () => Output | Promise<Output>,
): Promise<Output> {
  if (armed.length === 0) return effect();
  currentStep = step;
  strike('before', step);
  strike('at', step);
  const output = await effect();
  strike('after', step);
  return output;
}

/** A point inside a step at which a fault may be ordered, by the step's name and its own. */
export function faultPoint(name: string): void {
  if (armed.length > 0) strike('at', name);
}

/** What a step runs instead of a program, where the order is that it hangs: the program, stopped before it begins. */
export function hangingIfOrdered(file: string, args: string[]): [file: string, args: string[]] {
  const hangs = armed.some(({ step, what }) => what === 'hang' && step === currentStep);
  return hangs ? ['/bin/sh', ['-c', 'kill -STOP $$; exec "$@"', 'sh', file, ...args]] : [file, args];
}

function strike(moment: string, step: string): void {
  for (const { what } of armed.filter((fault) => fault.moment === moment && fault.step === step)) {
    if (what === 'kill') process.kill(process.pid, 'SIGKILL');
    else if (what !== 'hang')
      throw Object.assign(new Error(`${what}: ordered by TARDIS_FAULT`), { code: what });
  }
}
