import { execFileSync, spawnSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type AnyStateMachine, type AnyStateNode, createMachine, fromPromise, setup } from 'xstate';
import { checkpointMachine } from '../../src/machines/checkpoint.ts';
import { containerMachine } from '../../src/machines/container.ts';
import { diagramOf } from '../../src/machines/diagram.ts';
import { restoreMachine } from '../../src/machines/restore.ts';
import { projectRoot } from '../support/paths.ts';

const machines: readonly AnyStateMachine[] = [containerMachine, checkpointMachine, restoreMachine];
const script = join(projectRoot, 'scripts/diagrams.mjs');
const scratch = mkdtempSync(join(tmpdir(), 'diagrams-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const statesOf = (node: AnyStateNode): AnyStateNode[] =>
  Object.values(node.states).flatMap((child) => [child, ...statesOf(child)]);
const idOf = (node: AnyStateNode): string => node.path.join('_');

/** The lines of a diagram, sorted by what Mermaid takes them for. */
function read(diagram: string) {
  const [header, ...rest] = diagram.trimEnd().split('\n');
  const lines = rest.map((line) => line.trim()).filter((line) => !line.startsWith('%%'));
  const all = (form: RegExp) => lines.map((line) => form.exec(line)).filter((match) => match !== null);
  return {
    header,
    lines,
    states: all(/^state "([^"]+)" as (\w+)( \{)?$/),
    descriptions: all(/^(\w+) : ([^:]+)$/),
    links: all(/^(\w+) --> (\w+) : ([^:]+)$/),
    ends: all(/^(\[\*\]|\w+) --> (\[\*\]|\w+)$/),
    closings: lines.filter((line) => line === '}'),
  };
}

describe.each(machines)('The diagram of the machine $id', (machine) => {
  const diagram = read(diagramOf(machine));
  const declared = new Set(diagram.states.map(([, , id]) => id));

  it('should be the one in state-diagrams (npm run diagrams)', () => {
    expect(readFileSync(join(projectRoot, 'state-diagrams', `${machine.id}.mmd`), 'utf8')).toBe(
      diagramOf(machine),
    );
  });

  it('should show every state of the machine, once', () => {
    expect(diagram.states.map(([, , id]) => id).sort()).toEqual(statesOf(machine.root).map(idOf).sort());
  });

  it('should show every service where it runs', () => {
    for (const node of statesOf(machine.root)) {
      for (const { src } of node.invoke) {
        const words = diagram.descriptions.filter(([, id]) => id === idOf(node)).map(([, , text]) => text);
        expect(words).toContainEqual(expect.stringMatching(new RegExp(`^runs (the machine )?${src}$`)));
      }
    }
  });

  it('should lead nowhere but to states that it shows', () => {
    expect(diagram.links.length).toBeGreaterThan(0);
    for (const [line, from, to] of diagram.links) {
      expect(declared, line).toContain(from);
      expect(declared, line).toContain(to);
    }
    for (const [line, from, to] of diagram.ends) {
      for (const id of [from, to]) if (id !== '[*]') expect(declared, line).toContain(id);
    }
  });

  it('should show every transition of the machine', () => {
    const shown = new Set(diagram.links.map(([, from, to]) => `${from} ${to}`));
    for (const node of statesOf(machine.root)) {
      for (const { target } of [...node.transitions.values(), node.always ?? []].flat()) {
        for (const to of (target ?? []) as AnyStateNode[])
          expect(shown).toContain(`${idOf(node)} ${idOf(to)}`);
      }
    }
  });

  it('should say of every state whether it is the first or a last one', () => {
    const initial = [machine.root, ...statesOf(machine.root)]
      .filter(({ type }) => type === 'compound')
      .map((node) => idOf(node.initial.target[0] as AnyStateNode));
    const final = statesOf(machine.root).filter(({ type }) => type === 'final');
    expect(diagram.ends.map(([line]) => line).sort()).toEqual(
      [...initial.map((id) => `[*] --> ${id}`), ...final.map((node) => `${idOf(node)} --> [*]`)].sort(),
    );
  });

  it('should keep to the plain subset of Mermaid, and say nothing twice', () => {
    const { header, lines, states, descriptions, links, ends, closings } = diagram;
    expect(header).toBe('stateDiagram-v2');
    expect(lines).toHaveLength(
      states.length + descriptions.length + links.length + ends.length + closings.length,
    );
    expect(closings).toHaveLength(states.filter(([, , , brace]) => brace).length);
    const sayings = lines.filter((line) => line !== '}');
    expect(new Set(sayings).size).toBe(sayings.length);
  });

  it('should name in a block only the states of that block, for Mermaid would move the others there', () => {
    const open: string[] = [''];
    for (const line of diagram.lines) {
      const [, block] = /^state "[^"]+" as (\w+) \{$/.exec(line) ?? [];
      const [, from, to] = /^(\w+) --> (\w+)/.exec(line) ?? [];
      const here = open.at(-1) ?? '';
      if (here !== '')
        for (const id of [from, to]) if (id) expect(id, line).toMatch(new RegExp(`^${here}_[a-zA-Z]+$`));
      if (block) open.push(block);
      if (line === '}') open.pop();
    }
    expect(open).toEqual(['']);
  });

  it('should name every condition', () => {
    expect(diagram.links.filter(([, , , label]) => label?.includes('[condition]'))).toEqual([]);
  });
});

describe('diagramOf', () => {
  it('should label a transition with how its service ended', () => {
    expect(diagramOf(checkpointMachine)).toContain('\n  dumping --> undoing : dumpMemory failed\n');
    expect(diagramOf(checkpointMachine)).toContain('\n  dumping --> thawing : dumpMemory done [mustThaw]\n');
    expect(diagramOf(checkpointMachine)).toContain('\n  dumping --> describing : dumpMemory done [else]\n');
  });

  it('should draw what moves nothing, what happens at once, and a guard with parameters', () => {
    const machine = setup({
      actors: { fetch: fromPromise(async () => 1) },
      guards: { isRipe: (_, _days: number) => true },
    }).createMachine({
      id: 'fruit',
      initial: 'green',
      states: {
        green: {
          always: { guard: { type: 'isRipe', params: 3 }, target: 'red' },
          on: { LOOK: { actions: () => {} }, PICK: { guard: () => true, target: 'red' } },
        },
        red: {
          initial: 'sweet',
          invoke: { src: 'fetch', id: 'fetching' },
          onDone: 'eaten',
          states: { sweet: { always: 'gone' }, gone: { type: 'final' } },
        },
        eaten: { type: 'final' },
      },
    });
    expect(diagramOf(machine)).toBe(`stateDiagram-v2
  %% Drawn from the machine "fruit" by npm run diagrams. Do not edit.
  [*] --> green
  state "green" as green
  green : stays on LOOK
  state "red, runs fetch" as red {
    [*] --> red_sweet
    state "sweet" as red_sweet
    state "gone" as red_gone
    red_sweet --> red_gone : at once
    red_gone --> [*]
  }
  state "eaten" as eaten
  green --> red : PICK [condition]
  green --> red : [isRipe]
  red --> eaten : done
  eaten --> [*]
`);
  });

  it('should draw a machine of one state', () => {
    expect(diagramOf(createMachine({ id: 'one', initial: 'only', states: { only: {} } }))).toContain(
      'state "only" as only',
    );
  });
});

describe('npm run diagrams', () => {
  it('should write what --check then accepts', () => {
    const directory = join(scratch, 'written');
    execFileSync(process.execPath, [script, directory]);
    const check = spawnSync(process.execPath, [script, '--check', directory], { encoding: 'utf8' });
    expect(check).toMatchObject({ status: 0, stderr: '' });
  });

  it('should name a stale file and the way out with --check, and leave it alone', () => {
    const directory = join(scratch, 'stale');
    execFileSync(process.execPath, [script, directory]);
    const path = join(directory, 'restore.mmd');
    appendFileSync(path, 'restored --> failed\n');
    const before = readFileSync(path, 'utf8');
    const check = spawnSync(process.execPath, [script, '--check', directory], { encoding: 'utf8' });
    expect(check).toMatchObject({
      status: 1,
      stderr: `${path} is not what src/machines says; run npm run diagrams\n`,
    });
    expect(readFileSync(path, 'utf8')).toBe(before);
  });

  it('should take a missing file for a stale one', () => {
    const check = spawnSync(process.execPath, [script, '--check', join(scratch, 'nowhere')], {
      encoding: 'utf8',
    });
    expect(check.status).toBe(1);
    expect(check.stderr.trimEnd().split('\n')).toHaveLength(3);
  });
});
