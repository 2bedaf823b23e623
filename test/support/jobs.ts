import type { Container } from './engine.ts';

/** Prints `tick 1`, `tick 2`, ... for ever, so that a lost or a repeated number shows. */
export const counting = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done'];

/** The numbers a counting job has printed. */
export function ticksOf(container: Pick<Container, 'lines'>): number[] {
  return container.lines().flatMap((line) => {
    const tick = /^tick (\d+)$/.exec(line)?.[1];
    return tick === undefined ? [] : [Number(tick)];
  });
}

/** The settings of an enabled container, for a test's own key. */
export const enabled = (key: string, more: Record<string, string> = {}): Record<string, string> => ({
  TARDIS_ENABLE: '1',
  TARDIS_CHECKPOINT_KEY: key,
  ...more,
});
