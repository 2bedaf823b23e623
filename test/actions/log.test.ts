import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { appendToRuncLog, openLog } from '../../src/actions/log.ts';
import { messageOf } from '../../src/actions/runc.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const file = (): string => scratch.at('log.json');
const text = (): string => readFileSync(file(), 'utf8');

/** What containerd's shim shows of a log (pkg/process, getLastRuntimeError): JSON values one after another. */
function shownByShim(log: string): string {
  let shown = '';
  for (const line of log.split('\n').filter(Boolean)) {
    const { level, msg, time } = JSON.parse(line) as Record<string, string>;
    // Go's time.Time takes RFC 3339 alone.
    expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    if (level === 'error') shown = (msg ?? '').trim();
  }
  return shown;
}

describe('appendToRuncLog', () => {
  it('should let the shim show the error and not the warnings', () => {
    writeFileSync(file(), '{"level":"info","msg":"runc began","time":"2026-01-02T03:04:05.000Z"}\n');
    appendToRuncLog({ file: file(), format: 'json' }, 'error', 'no "space"\nleft');
    appendToRuncLog({ file: file(), format: 'json' }, 'warning', 'tardis: from scratch');
    expect(shownByShim(text())).toBe('no "space"\nleft');
    expect(text().split('\n')).toHaveLength(4);
  });

  it.each(['error', 'warning'] as const)('should write an %s as runc writes it as text', (level) => {
    appendToRuncLog({ file: file(), format: 'text' }, level, 'no "space" left');
    const [, given, message] =
      /^time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z" level=(\w+) msg=(.*)\n$/.exec(text()) ?? [];
    expect([given, message]).toEqual([level, '"no \\"space\\" left"']);
  });

  it('should write one line, out of which the message can be read again, whatever it is', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary', minLength: 1 }),
        fc.constantFrom('json', 'text'),
        (message, format) => {
          writeFileSync(file(), '');
          appendToRuncLog({ file: file(), format }, 'error', message);
          expect(text().match(/\n/g)).toHaveLength(1);
          expect(messageOf(text().trimEnd())).toBe(message);
        },
      ),
    );
  });

  it('should write nothing where the caller named no log, and fail nobody where it cannot be written', () => {
    appendToRuncLog(undefined, 'error', 'lost');
    appendToRuncLog(
      { file: scratch.at('gone', 'x', '..', '..', 'none', 'log'), format: 'json' },
      'error',
      'lost',
    );
    mkdirSync(scratch.at('directory'));
    appendToRuncLog({ file: scratch.at('directory'), format: 'json' }, 'error', 'lost');
    appendToRuncLog({ file: '/dev/full', format: 'json' }, 'error', 'lost');
  });
});

describe('openLog', () => {
  const path = (): string => join(scratch.path, 'var', 'log', 'tardis.jsonl');

  it('should append one JSON object a line, at once, with words for levels', () => {
    openLog(path(), { id: 'job', pid: 7 }).warn({ reason: 'why' }, 'what');
    openLog(path(), {}).info('again');
    const lines = readFileSync(path(), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(lines).toEqual([
      { level: 'warn', time: expect.stringMatching(/Z$/), id: 'job', pid: 7, reason: 'why', msg: 'what' },
      { level: 'info', time: expect.stringMatching(/Z$/), msg: 'again' },
    ]);
  });

  it("should be for root's eyes only", () => {
    openLog(path(), {}).info('secret');
    expect(statSync(path()).mode & 0o777).toBe(0o600);
    expect(statSync(scratch.at('var', 'log')).mode & 0o777).toBe(0o700);
  });

  it('should be silent where the file cannot be opened', () => {
    writeFileSync(scratch.at('file'), '');
    openLog(`${scratch.at('file')}/log`, {}).error('lost');
    mkdirSync(scratch.at('directory'));
    openLog(scratch.at('directory'), {}).error('lost');
    expect(readFileSync(scratch.at('file'), 'utf8')).toBe('');
  });

  it('should be silent where the disk is full', () => {
    const log = openLog('/dev/full', {});
    for (let i = 0; i < 3; i++) log.error('lost');
  });
});
