import fs from 'node:fs';
import { join } from 'node:path';
import { Problem, reasonOf } from './problem.ts';
import * as z from './schema.ts';

/** Raised with every change of the envelope's own form. */
export const stateSchemaVersion = 1;
/** Raised with every renamed or removed state, actor, or context field of the machines. */
export const machineVersion = 1;

const historyEntry = z.object({
  /** RFC 3339. */
  at: z.string(),
  event: z.string(),
  from: z.string(),
  to: z.string(),
  /** How long the container was in `from` during this command, in milliseconds. */
  ms: z.number(),
});

const stateSchema = z.object({
  schemaVersion: z.literal(stateSchemaVersion),
  machineVersion: z.literal(machineVersion),
  id: z.string(),
  root: z.string(),
  bundle: z.string(),
  key: z.string(),
  imageRoot: z.string(),
  /** The machine's persisted snapshot: `value`, `context`, and its children. */
  snapshot: z.looseObject({ value: z.unknown(), context: z.looseObject({}) }),
  history: z.array(historyEntry),
});

export type StateRecord = z.infer<typeof stateSchema>;
export type HistoryEntry = z.infer<typeof historyEntry>;

/** Where a container's state stands: next to its bundle's config.json. */
export const stateFileOf = (bundle: string): string => join(bundle, 'tardis.json');

/** A job paused and resumed every minute for months must not grow its state file without end. */
const historyLimit = 200;

/**
 * Writes the state so that a reader sees the one before or this one, never half of it.
 *
 * @throws the file system's own error (a full or read-only disk).
 */
export function writeState(state: StateRecord): void {
  const path = stateFileOf(state.bundle);
  // Always the same: whoever holds the container's lock is the only one to write, and a killed one's is replaced.
  const draft = `${path}.new`;
  try {
    const fd = fs.openSync(draft, 'w', 0o600);
    try {
      fs.writeFileSync(
        fd,
        `${JSON.stringify({ ...state, history: state.history.slice(-historyLimit) }, null, 1)}\n`,
      );
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    fs.renameSync(draft, path);
  } catch (error) {
    fs.rmSync(draft, { force: true });
    throw error;
  }
}

/**
 * Reads a state file.
 *
 * @throws Problem `state-missing` where there is none, `state-broken` where it is not one this Tardis can read.
 */
export function readState(path: string): StateRecord {
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new Problem(missing ? 'state-missing' : 'state-broken', `cannot read ${path}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
  try {
    return stateSchema.parse(JSON.parse(text));
  } catch (error) {
    const why = error instanceof z.$ZodError ? z.prettifyError(error) : reasonOf(error);
    throw new Problem(
      'state-broken',
      `${path} is not a state file of this Tardis (schema ${stateSchemaVersion}, machine ${machineVersion}): ${reasonOf(why)}`,
      { cause: error },
    );
  }
}
