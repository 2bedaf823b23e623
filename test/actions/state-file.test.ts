import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readState, type StateRecord, stateFileOf, writeState } from '../../src/actions/state-file.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();

const stateIn = (bundle: string, given: Partial<StateRecord> = {}): StateRecord => ({
  schemaVersion: 1,
  machineVersion: 1,
  id: 'job',
  root: '/run/runc',
  bundle,
  key: 'job-key',
  imageRoot: '/images',
  snapshot: { value: { alive: 'running' }, context: { image: { generation: 3 } }, children: {} },
  history: [],
  ...given,
});
const entry = (n: number) => ({
  at: new Date(n).toISOString(),
  event: `E${n}`,
  from: 'a',
  to: 'b',
  ms: n / 10,
});
const file = (): string => stateFileOf(scratch.path);

describe('writeState', () => {
  it('should keep everything for readState, whatever the snapshot holds', () => {
    const json = fc.jsonValue({ maxDepth: 3, noUnicodeString: false }) as fc.Arbitrary<unknown>;
    // JSON has no negative zero.
    const plain = json.map((value) => JSON.parse(JSON.stringify(value)) as unknown);
    const name = fc.string().filter((text) => text !== '__proto__');
    fc.assert(
      fc.property(plain, fc.dictionary(name, plain), fc.string(), (value, context, id) => {
        const state = stateIn(scratch.path, {
          id,
          snapshot: { value, context },
          history: [entry(1), entry(2)],
        });
        writeState(state);
        expect(readState(file())).toEqual(state);
      }),
      { numRuns: 25 },
    );
  });

  it('should write a file for the owner only, over one with another mode too', () => {
    writeFileSync(file(), 'x', { mode: 0o644 });
    writeState(stateIn(scratch.path));
    expect(statSync(file()).mode & 0o777).toBe(0o600);
  });

  it('should leave nothing else in the bundle', () => {
    writeState(stateIn(scratch.path));
    writeState(stateIn(scratch.path));
    expect(readdirSync(scratch.path)).toEqual(['tardis.json']);
  });

  it('should replace the file, so that a reader has the old one or the new one whole', () => {
    writeState(stateIn(scratch.path));
    const before = statSync(file()).ino;
    const text = readFileSync(file(), 'utf8');
    writeState(stateIn(scratch.path));
    expect(statSync(file()).ino).not.toBe(before);
    expect(readFileSync(file(), 'utf8')).toBe(text);
  });

  it('should keep the latest 200 entries of the history', () => {
    const history = Array.from({ length: 201 }, (_, n) => entry(n));
    writeState(stateIn(scratch.path, { history: history.slice(0, 200) }));
    expect(readState(file()).history).toEqual(history.slice(0, 200));
    writeState(stateIn(scratch.path, { history }));
    expect(readState(file()).history).toEqual(history.slice(1));
  });

  it('should fail with the reason of the file system where the bundle is gone', () => {
    const bundle = scratch.at('bundle');
    mkdirSync(bundle);
    writeState(stateIn(bundle));
    rmSync(bundle, { recursive: true });
    expect(() => writeState(stateIn(bundle))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(readdirSync(scratch.path)).toEqual([]);
  });

  it('should take the place of what a wrapper left that was killed as it wrote', () => {
    writeState(stateIn(scratch.path));
    writeFileSync(`${file()}.new`, '{"half');
    writeState(stateIn(scratch.path, { key: 'new' }));
    expect(readState(file()).key).toBe('new');
    expect(readdirSync(scratch.path)).toEqual(['tardis.json']);
  });

  it('should leave no draft where the file cannot be replaced', () => {
    mkdirSync(file());
    expect(() => writeState(stateIn(scratch.path))).toThrow(expect.objectContaining({ code: 'EISDIR' }));
    expect(readdirSync(scratch.path)).toEqual(['tardis.json']);
  });

  it('should leave what was there where the snapshot cannot be written as JSON', () => {
    writeState(stateIn(scratch.path));
    const snapshot = { value: 1n, context: {} };
    expect(() => writeState(stateIn(scratch.path, { snapshot }))).toThrow('BigInt');
    expect(readState(file())).toEqual(stateIn(scratch.path));
    expect(readdirSync(scratch.path)).toEqual(['tardis.json']);
  });

  it.skipIf(!isRoot)('should leave the whole file before it where the disk is full', () => {
    const bundle = scratch.tmpfs('full', 'size=16k');
    const state = stateIn(bundle);
    writeState(state);
    // Some of it fits: the kernel then writes less than it was asked to.
    const long = stateIn(bundle, { key: 'k'.repeat(20_000) });
    expect(() => writeState(long)).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
    expect(readState(stateFileOf(bundle))).toEqual(state);
    expect(readdirSync(bundle)).toEqual(['tardis.json']);
  });
});

describe('readState', () => {
  it('should say that there is none', async () => {
    const problem = await problemOf(() => readState(file()));
    expect(problem).toMatchObject({ code: 'state-missing', message: expect.stringContaining(file()) });
  });

  it('should say that the bundle is gone as well', async () => {
    expect((await problemOf(() => readState(join(scratch.path, 'no', 'tardis.json')))).code).toBe(
      'state-missing',
    );
  });

  it('should say what cannot be read', async () => {
    mkdirSync(file());
    const problem = await problemOf(() => readState(file()));
    expect(problem).toMatchObject({ code: 'state-broken', message: expect.stringContaining('EISDIR') });
  });

  const whole = JSON.stringify(stateIn('/b'));
  const without = (name: keyof StateRecord): string =>
    JSON.stringify({ ...stateIn('/b'), [name]: undefined });
  it.each([
    ['empty', '', /JSON/],
    ['torn', whole.slice(0, -1), /JSON/],
    ['null', 'null', /expected object/],
    ['of a newer schema', whole.replace('"schemaVersion":1', '"schemaVersion":2'), /schemaVersion/],
    ['of another machine', whole.replace('"machineVersion":1', '"machineVersion":2'), /machineVersion/],
    ['without an id', without('id'), /\bid\b/],
    ['without a snapshot', without('snapshot'), /snapshot/],
    ['without a context', whole.replace('"context"', '"contxt"'), /snapshot\.context/],
    ['without a history', without('history'), /history/],
    ['with a history of something else', whole.replace('"history":[]', '"history":[{}]'), /history\[0\]\.at/],
  ])(
    'should refuse a file that is %s, naming it and what it expected, in one line',
    async (_, text, message) => {
      writeFileSync(file(), text);
      const problem = await problemOf(() => readState(file()));
      expect(problem.code).toBe('state-broken');
      expect(problem.message).toContain(
        `${file()} is not a state file of this Tardis (schema 1, machine 1): `,
      );
      expect(problem.message).toMatch(message);
      expect(problem.message).not.toContain('\n');
    },
  );
});
