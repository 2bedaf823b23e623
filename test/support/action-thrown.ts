import { Problem } from '../../src/actions/problem.ts';

/** The Problem that an action throws; anything else that it does fails the test. */
export async function problemOf(action: () => unknown): Promise<Problem> {
  try {
    await action();
  } catch (error) {
    if (error instanceof Problem) return error;
    throw new Error('expected a Problem, found something else', { cause: error });
  }
  throw new Error('expected a Problem, found none');
}
