import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Host } from '../../src/actions/host.ts';
import { sweepIfDue } from '../../src/actions/sweep.ts';
import { hostWith } from '../support/action-host.ts';
import { isThere } from '../support/action-processes.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { ageKey, writeKey } from '../support/key-ledger.ts';
import { waitFor } from '../support/wait.ts';

const scratch = useScratch();
const root = () => scratch.at('images');
const long = 60_000;
let lines: Record<string, unknown>[];

beforeEach(() => {
  lines = [];
  mkdirSync(root());
});

/** A host whose programs may be replaced. */
function hostHere(): Host {
  const { config } = hostWith();
  return hostWith({
    config: { ...config, checkpointRoot: root(), runDir: scratch.at('run'), shareTimeoutSeconds: 1 },
    env: { PATH: `${scratch.at('bin')}${delimiter}${process.env.PATH}` },
    log: pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) }),
  });
}

/** Puts a program before the host's own that notes its pid. */
function program(name: string, script: string): void {
  const note = `echo "$$" >>"${scratch.at('pids')}"`;
  writeFileSync(scratch.at('bin', name), `#!/bin/sh\n${note}\n${script}\n`, { mode: 0o755 });
}
const pids = () =>
  existsSync(scratch.at('pids'))
    ? readFileSync(scratch.at('pids'), 'utf8').split('\n').filter(Boolean).map(Number)
    : [];
afterEach(async () => {
  for (const pid of pids().filter(isThere)) process.kill(pid, 'SIGKILL');
  await waitFor('their end', () => pids().every((pid) => !isThere(pid)) || undefined);
});

function job(key: string, words: string, days = 8): void {
  const place = { imageRoot: root(), key };
  writeKey(place, words);
  ageKey(place, days);
}
const finished = 'life image 1 finished:preempted';
/** Ten minutes pass. */
function timePasses(seconds = 601): void {
  const swept = scratch.at('run', 'swept', 'x').slice(0, -2);
  const then = Date.now() / 1000 - seconds;
  for (const name of readdirSync(swept)) utimesSync(join(swept, name), then, then);
}

describe('sweepIfDue', () => {
  it('removes what finished jobs of any key have left for long enough, and nothing else', async () => {
    job('done', finished);
    job('done-before', finished, 900);
    job('just-done', finished, 6);
    job('killed', 'life image 1 killed:preempted', 900);
    job('lost', 'life image 1', 900);
    mkdirSync(join(root(), 'data', '1'), { recursive: true });
    writeFileSync(join(root(), 'file'), '');
    symlinkSync('loop', join(root(), 'loop'));
    await sweepIfDue(hostHere(), root(), long);
    expect(readdirSync(root()).sort()).toEqual(['data', 'file', 'just-done', 'killed', 'loop', 'lost']);
    expect(lines.map(({ key, generations }) => [key, generations]).sort()).toEqual([
      ['done', [1]],
      ['done-before', [1]],
    ]);
  });

  it('looks once in ten minutes, also if the clock is set back', async () => {
    const host = hostHere();
    await sweepIfDue(host, root(), long);
    for (const [key, seconds] of [
      ['late', 601],
      ['set-back', -601],
    ] as const) {
      job(key, finished);
      await sweepIfDue(host, root(), long);
      expect(readdirSync(root())).toEqual([key]);
      timePasses(seconds);
      await sweepIfDue(host, root(), long);
      expect(readdirSync(root())).toEqual([]);
    }
  });

  it('comes to every one of many keys, also after it was cut short at one of them', async () => {
    for (let n = 0; n < 30; n++) job(`done-${n}`, finished);
    for (let n = 0; n < 30; n++) job(`kept-${n}`, 'life image 1 killed:preempted');
    const host = hostHere();
    await waitFor('the last of them', async () => {
      await sweepIfDue(host, root(), 20);
      timePasses();
      return readdirSync(root()).length === 30 || undefined;
    });
    expect(readdirSync(root()).every((key) => key.startsWith('kept-'))).toBe(true);
  });

  it('does not wait for a removal that takes long, and begins no other beside it', async () => {
    for (const key of ['one', 'two', 'three']) job(key, finished);
    program('rm', `${scratch.awaiting('go')}; exec /bin/rm "$@"`);
    await sweepIfDue(hostHere(), root(), 1500);
    const going = await waitFor('a removal', () => pids()[0]);
    expect(pids()).toEqual([going]);
    const begun = readdirSync(root()).filter((key) => existsSync(join(root(), key, '1.removed')));
    expect(begun).toHaveLength(1);
    writeFileSync(scratch.at('go'), '');
    await waitFor('its end', () => !isThere(going) || undefined);
    expect(existsSync(join(root(), begun[0] ?? '', '1.removed'))).toBe(false);
  });

  it('touches nothing and fails nothing if the directory does not answer', async () => {
    job('done', finished);
    program('mkdir', 'exec sleep 600');
    await sweepIfDue(hostHere(), root(), long);
    expect(readdirSync(join(root(), 'done')).sort()).toEqual(['1', 'ledger']);
    expect(lines).toEqual([expect.objectContaining({ msg: expect.stringContaining('cannot look for') })]);
  });

  it.skipIf(!isRoot)('touches nothing in a directory that others may write', async () => {
    job('done', finished);
    chmodSync(root(), 0o777);
    await sweepIfDue(hostHere(), root(), long);
    expect(readdirSync(join(root(), 'done')).sort()).toEqual(['1', 'ledger']);
    expect(lines).toEqual([expect.objectContaining({ reason: expect.stringContaining('has mode 0777') })]);
  });

  it('goes on after a key that it cannot understand', async () => {
    job('done', finished);
    job('of-a-later-tardis', finished);
    writeFileSync(join(root(), 'of-a-later-tardis', 'ledger', '9'), '{"kind":"later"}');
    ageKey({ imageRoot: root(), key: 'of-a-later-tardis' }, 8);
    await sweepIfDue(hostHere(), root(), long);
    expect(readdirSync(root())).toEqual(['of-a-later-tardis']);
  });

  it('says nothing where there is no such directory, and no key', async () => {
    await sweepIfDue(hostHere(), root(), long);
    rmSync(root(), { recursive: true });
    timePasses();
    await sweepIfDue(hostHere(), root(), long);
    expect(lines).toEqual([]);
  });
});
