// Draws the machines into state-diagrams/, or into the directory named; with --check only tells a drawing that is stale.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { checkpointMachine } from '../src/machines/checkpoint.ts';
import { containerMachine } from '../src/machines/container.ts';
import { diagramOf } from '../src/machines/diagram.ts';
import { restoreMachine } from '../src/machines/restore.ts';

const { values, positionals } = parseArgs({
  options: { check: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const directory = positionals[0] ? resolve(positionals[0]) : join(import.meta.dirname, '../state-diagrams');

for (const machine of [containerMachine, checkpointMachine, restoreMachine]) {
  const path = join(directory, `${machine.id}.mmd`);
  const drawing = diagramOf(machine);
  if (!values.check) {
    mkdirSync(directory, { recursive: true });
    writeFileSync(path, drawing);
  } else if (read(path) !== drawing) {
    console.error(`${path} is not what src/machines says; run npm run diagrams`);
    process.exitCode = 1;
  }
}

function read(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
