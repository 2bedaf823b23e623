import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { answers, demandAnswer } from '../../src/actions/share.ts';
import { hostWith } from '../support/action-host.ts';
import { isThere, statOf } from '../support/action-processes.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { waitFor } from '../support/wait.ts';

const scratch = useScratch();
const images = () => scratch.at('images');
const hostHere = (shareTimeoutSeconds = 0.3) =>
  hostWith({
    config: { ...hostWith().config, runDir: scratch.at('run'), shareTimeoutSeconds },
    env: { PATH: `${scratch.at('bin')}${delimiter}${process.env.PATH}` },
  });

/** Puts a program on PATH, before the host's own, that notes its pid and how it was called. */
function program(name: 'mkdir' | 'rmdir', script: string): void {
  const path = scratch.at('bin', name);
  const note = `echo "$$ ${name} $*" >>"${scratch.at('calls')}"`;
  writeFileSync(path, `#!/bin/sh\n${note}\n${script}\n`, { mode: 0o755 });
}

/** What has been called so far, with its pid. */
const calls = () =>
  existsSync(scratch.at('calls'))
    ? readFileSync(scratch.at('calls'), 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((line) => ({ pid: Number(line.split(' ')[0]), line: line.replace(/^\d+ /, '') }))
    : [];
const hanging = () => calls().filter(({ pid }) => isThere(pid));
/** The pid of one that has been asked, and hangs. */
const hung = () => waitFor('one that hangs', () => hanging()[0]?.pid);
const end = (pid: number) => {
  process.kill(pid, 'SIGKILL');
  return waitFor('its end', () => !isThere(pid) || undefined);
};

/** A server that is gone: whoever asks does not come back. */
const hangs = 'exec sleep 600';
/** One that answers when a file is there, and does then what the real one does. */
const onceThere = (name: string, then: string) => `${scratch.awaiting(name)}; ${then}`;

beforeEach(() => mkdirSync(images()));
afterEach(() => Promise.all(hanging().map(({ pid }) => end(pid))));

describe('answers', () => {
  it('asks by a change, and leaves nothing of that', async () => {
    program('mkdir', 'exec /bin/mkdir "$@"');
    program('rmdir', 'exec /bin/rmdir "$@"');
    expect(await answers(hostHere(30), images())).toBe(true);
    expect(calls().map(({ line }) => line)).toEqual([
      `mkdir -m 700 ${images()}/.tardis-asks`,
      `rmdir ${images()}/.tardis-asks`,
    ]);
    expect(readdirSync(images())).toEqual([]);
    expect(existsSync(scratch.at('run', 'unreachable'))).toBe(false);
  });

  it('has an answer from many at once, and leaves nothing of all that', async () => {
    const host = hostHere(30);
    expect(await Promise.all(Array.from({ length: 20 }, () => answers(host, images())))).not.toContain(false);
    expect(readdirSync(images())).toEqual([]);
  });

  it('takes what an earlier question has left for its own', async () => {
    mkdirSync(scratch.at('images', '.tardis-asks'));
    expect(await answers(hostHere(30), images())).toBe(true);
    expect(readdirSync(images())).toEqual([]);
  });

  it.each([
    ['there is no such directory', () => rmSync(images(), { recursive: true })],
    ['its place is a file', () => writeFileSync(scratch.at('images', 'file'), ''), 'file'],
    ['it cannot be written to', () => program('mkdir', 'echo "Read-only file system" >&2; exit 1')],
    ['nothing can be removed there', () => program('rmdir', 'exit 1')],
    ['the program is killed', () => program('mkdir', 'kill -KILL $$')],
  ])('takes a refusal for an answer, if %s', async (_, spoil, name = '') => {
    spoil();
    expect(await answers(hostHere(30), join(images(), name))).toBe(true);
  });

  it('takes it for an answer that nobody can ask', async () => {
    const host = { ...hostHere(30), env: { PATH: scratch.at('nowhere') } };
    expect(await answers(host, images())).toBe(true);
  });

  it.each(['mkdir', 'rmdir'] as const)('has none when its time is up, if %s hangs', async (name) => {
    program(name, hangs);
    expect(await answers(hostHere(), images())).toBe(false);
    // It is left behind: nothing could end it if its server were gone.
    expect(isThere(await hung())).toBe(true);
  });

  it('gives both programs together as long as the limit is', async () => {
    program('mkdir', 'sleep 0.9');
    program('rmdir', hangs);
    const began = performance.now();
    expect(await answers(hostHere(1), images())).toBe(false);
    expect(performance.now() - began).toBeLessThan(1_800);
  });

  it('waits for a late answer within its time', async () => {
    program('mkdir', 'sleep 0.3; exec /bin/mkdir "$@"');
    expect(await answers(hostHere(30), images())).toBe(true);
    expect(readdirSync(images())).toEqual([]);
  });

  it('has none at once for as long as one hangs that asked before', async () => {
    program('mkdir', hangs);
    expect(await answers(hostHere(), images())).toBe(false);
    await hung();
    // Whoever waited here would wait too long for the test.
    const others = Array.from({ length: 10 }, () => answers(hostHere(60_000), images()));
    expect(new Set(await Promise.all(others))).toEqual(new Set([false]));
    expect(calls()).toHaveLength(1);
  });

  it('asks another directory meanwhile', async () => {
    program('mkdir', `case "$*" in *images/*) ${hangs} ;; esac; exec /bin/mkdir "$@"`);
    mkdirSync(scratch.at('others'));
    expect(await answers(hostHere(), images())).toBe(false);
    expect(await answers(hostHere(30), scratch.at('others'))).toBe(true);
    expect(await answers(hostHere(30), images())).toBe(false);
  });

  it('asks anew once the one that hung has its answer, and leaves nothing of either', async () => {
    program('mkdir', onceThere('server', 'exec /bin/mkdir "$@"'));
    expect(await answers(hostHere(), images())).toBe(false);
    const pid = await hung();
    writeFileSync(scratch.at('server'), '');
    await waitFor('its end', () => !isThere(pid) || undefined);
    expect(readdirSync(images())).toEqual(['.tardis-asks']);
    expect(await answers(hostHere(30), images())).toBe(true);
    expect(readdirSync(images())).toEqual([]);
    expect(readdirSync(scratch.at('run', 'unreachable'))).toEqual([]);
  });

  it('asks anew, and notes it anew, if the next one hangs as well', async () => {
    program('mkdir', hangs);
    expect(await answers(hostHere(), images())).toBe(false);
    await end(await hung());
    expect(await answers(hostHere(), images())).toBe(false);
    await hung();
    expect(await answers(hostHere(30), images())).toBe(false);
    expect([hanging().length, calls().length]).toEqual([1, 2]);
  });

  it.each([
    ['is of a process that has ended, and its pid has been used again', () => `${process.pid} 1\n`],
    ['is empty', () => ''],
    ['is no note', () => 'gone fishing\n'],
  ])('asks in spite of a note that %s', async (_, note) => {
    program('mkdir', hangs);
    expect(await answers(hostHere(), images())).toBe(false);
    await end(await hung());
    const [name = ''] = readdirSync(scratch.at('run', 'unreachable'));
    writeFileSync(scratch.at('run', 'unreachable', name), note());
    rmSync(scratch.at('bin', 'mkdir'));
    expect(await answers(hostHere(30), images())).toBe(true);
  });

  it('has its answer also if nothing can be noted', async () => {
    writeFileSync(scratch.at('run'), '');
    program('mkdir', hangs);
    expect(await answers(hostHere(), images())).toBe(false);
    rmSync(scratch.at('bin', 'mkdir'));
    expect(await answers(hostHere(30), images())).toBe(true);
  });

  it('holds neither the working directory nor the streams or the session of its caller with what it leaves', async () => {
    program('mkdir', `readlink /proc/$$/cwd /proc/$$/fd/0 /proc/$$/fd/2 >"${scratch.at('seen')}"; ${hangs}`);
    expect(await answers(hostHere(0.5), images())).toBe(false);
    const pid = await hung();
    const seen = await waitFor('what it sees', () => {
      const lines = readFileSync(scratch.at('seen'), 'utf8').split('\n');
      return lines.length > 3 && lines;
    });
    expect(seen.slice(0, 3)).toEqual(['/', '/dev/null', '/dev/null']);
    expect(statOf(pid)?.session).toBe(pid);
  });
});

describe('demandAnswer', () => {
  it('does nothing more if the directory answers', async () => {
    await demandAnswer(hostHere(30), images());
  });

  it('says which directory does not answer, for how long, and what to do', async () => {
    program('mkdir', hangs);
    expect(await problemOf(() => demandAnswer(hostHere(), images()))).toMatchObject({
      code: 'images-unreachable',
      message: `${images()} did not answer within 0.3 s (shareTimeoutSeconds); look after its file server or its mount`,
    });
  });
});
