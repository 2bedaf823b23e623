import fs from 'node:fs';
import { Problem, reasonOf } from '../../actions/problem.ts';
import { machineVersion, readState, type StateRecord, stateSchemaVersion } from '../../actions/state-file.ts';

/**
 * Reads a state file for a person: where {@link readState} only says that it cannot, this says why.
 *
 * @throws Problem `state-missing`, `state-broken`, or `state-version` for one that another Tardis wrote.
 */
export function loadState(path: string): StateRecord {
  try {
    return readState(path);
  } catch (error) {
    throw explain(path, error);
  }
}

function explain(path: string, error: unknown): unknown {
  const found = peek(path);
  const versions = versionsIn(found);
  const ours = `schema ${stateSchemaVersion}, machine ${machineVersion}`;
  if (versions !== undefined && versions !== ours) {
    return new Problem(
      'state-version',
      `${path} was written by another Tardis (${versions}); this one reads ${ours}: inspect it with the one that wrote it`,
      { cause: error },
    );
  }
  if (typeof found === 'object' && found !== null && 'generation' in found && 'files' in found) {
    return new Problem(
      'state-broken',
      `${path} is the manifest of a checkpoint image; expected a container's id, its bundle, or a state file`,
      { cause: error },
    );
  }
  return error instanceof Problem
    ? error
    : new Problem('state-broken', `cannot read ${path}: ${reasonOf(error)}`);
}

function peek(path: string): unknown {
  try {
    return JSON.parse(fs.readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

function versionsIn(found: unknown): string | undefined {
  if (typeof found !== 'object' || found === null) return undefined;
  const { schemaVersion, machineVersion: machine } = found as Record<string, unknown>;
  return typeof schemaVersion === 'number' && typeof machine === 'number'
    ? `schema ${schemaVersion}, machine ${machine}`
    : undefined;
}
