import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { appendEntry, readLedger } from '../../src/actions/ledger.ts';
import { forgetKey, noteRemoval } from '../../src/actions/removal.ts';
import { hostWith } from '../support/action-host.ts';
import { useScratch } from '../support/action-scratch.ts';
import { elsewhere, writeKey } from '../support/key-ledger.ts';

const scratch = useScratch();
const place = () => ({ imageRoot: scratch.at('images'), key: 'job' });
const home = () => join(place().imageRoot, 'job');
const kinds = () => readLedger(home()).entries.map(({ kind }) => kind);

/** A job's ledger as it was read, and the removal that was noted after it. */
function noted(words = 'life killed') {
  writeKey(place(), words);
  const read = readLedger(home());
  return { read, number: noteRemoval(hostWith(), home(), read, []) ?? 0 };
}

describe('forgetKey', () => {
  it('removes the key whose removal was noted', () => {
    const { read, number } = noted();
    forgetKey(hostWith(), home(), read, number);
    expect(existsSync(home())).toBe(false);
  });

  it('leaves it to whoever has taken the job up since', () => {
    const { read, number } = noted();
    appendEntry(home(), number, { kind: 'life', claimant: elsewhere });
    forgetKey(hostWith(), home(), read, number);
    expect(kinds()).toEqual(['life', 'end', 'removal', 'life']);
  });

  it('leaves it to whoever has begun it anew, with a number that stands before the removal', () => {
    const { read, number } = noted();
    for (const old of [1, 2]) rmSync(join(home(), 'ledger', String(old)));
    appendEntry(home(), 0, { kind: 'life', claimant: elsewhere });
    forgetKey(hostWith(), home(), read, number);
    expect(kinds()).toEqual(['life', 'removal']);
  });

  it('leaves a removal to the one that has noted it', () => {
    const { read, number } = noted();
    const { config } = hostWith();
    forgetKey({ config: { ...config, hostId: 'another' } }, home(), read, number);
    expect(kinds()).toEqual(['life', 'end', 'removal']);
  });

  it('leaves a key in which something has been made since', () => {
    const { read, number } = noted();
    mkdirSync(join(home(), '1.partial'));
    forgetKey(hostWith(), home(), read, number);
    expect(kinds()).toEqual(['life', 'end', 'removal']);
  });
});

describe('noteRemoval', () => {
  it('notes nothing after an entry that is not the last any more', () => {
    writeKey(place(), 'life killed');
    const read = readLedger(home());
    appendEntry(home(), 2, { kind: 'life', claimant: elsewhere });
    expect(noteRemoval(hostWith(), home(), read, [])).toBeUndefined();
    expect(kinds()).toEqual(['life', 'end', 'life']);
  });

  it('takes itself back if the ledger was begun anew', () => {
    writeKey(place(), 'life killed life killed');
    const read = readLedger(home());
    rmSync(home(), { recursive: true });
    writeKey(place(), 'life');
    expect(noteRemoval(hostWith(), home(), read, [])).toBeUndefined();
    expect(kinds()).toEqual(['life']);
  });
});
