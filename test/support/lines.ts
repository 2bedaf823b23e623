import { type WaitOptions, waitFor } from './wait.ts';

/** The complete lines of a container's output; a terminal ends them with a carriage return too. */
export function completeLines(output: string): string[] {
  return output.split(/\r*\n/).slice(0, -1);
}

/** Follows growing output until a line matches; says what was written last when none does. */
export function waitForLine(
  id: string,
  output: () => string,
  pattern: RegExp,
  options: WaitOptions = {},
): Promise<RegExpExecArray> {
  const find = () =>
    completeLines(output())
      .map((line) => pattern.exec(line))
      .find((match) => match !== null);
  const seen = () => JSON.stringify(output().slice(-500));
  return waitFor(`a line of ${id} that matches ${pattern}`, find, { seen, ...options });
}
