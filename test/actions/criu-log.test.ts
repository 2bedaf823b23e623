import { writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { lastCriuErrors } from '../../src/actions/criu-log.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();

/** What is read of a log of these lines. */
function errorsIn(...lines: string[]): string | undefined {
  const log = scratch.at('dump.log');
  writeFileSync(log, `${lines.join('\n')}\n`);
  return lastCriuErrors(log);
}

describe('lastCriuErrors', () => {
  it('should say where and why a dump failed, and leave out what follows from it', () => {
    expect(
      errorsIn(
        '(00.000049) Version: 4.1 (gitid 0)',
        '(00.000152) rlimit: RLIMIT_NOFILE unlimited for self',
        '(00.031415) Warn  (criu/kerndat.c:1103): CRIU was built without libnftables support',
        '(00.052002) 20666 fdinfo 7: pos:                0 flags:           100002/0',
        "(00.052021) Error (criu/files-ext.c:95): Can't dump file 7 of that type [20666] (chr 10:200)",
        '(00.052064) ----------------------------------------',
        '(00.052105) Error (criu/cr-dump.c:1674): Dump files (pid: 20666) failed with -1',
        '(00.053000) Unlock network',
        '(00.060183) Error (criu/cr-dump.c:2098): Dumping FAILED.',
      ),
    ).toBe(
      "criu/files-ext.c:95: Can't dump file 7 of that type [20666] (chr 10:200); " +
        'criu/cr-dump.c:1674: Dump files (pid: 20666) failed with -1',
    );
  });

  it('should read the errors of a task that is being restored, which begin with its pid', () => {
    expect(
      errorsIn(
        '(00.002405)  24411: tty: ctl tty leader 0x20',
        '(00.002407)  24411: Error (criu/tty.c:1435): tty: No task found with sid 22997',
        '(00.002672) Error (criu/cr-restore.c:2536): Restoring FAILED.',
        '(00.002826) Error (criu/cr-restore.c:1498): 24411 killed by signal 9: Killed',
      ),
    ).toBe(
      'criu/tty.c:1435: tty: No task found with sid 22997; criu/cr-restore.c:1498: 24411 killed by signal 9: Killed',
    );
  });

  it("should read the errors of CRIU's restorer, which begin with a word and a pid", () => {
    expect(
      errorsIn(
        '(00.091113) pie: 34661: Error (criu/pie/restorer.c:2878): Unable to create a thread: -17',
        '(00.091544) pie: 34661: seccomp: mode 0 on tid 34661',
        '(00.103877) Error (criu/cr-restore.c:2320): Restoring FAILED.',
      ),
    ).toBe('criu/pie/restorer.c:2878: Unable to create a thread: -17');
  });

  it('should say the last three', () => {
    const line = (n: number): string => `(12.00000${n}) Error (criu/a.c:${n}): reason ${n}`;
    expect(errorsIn(...[1, 2, 3, 4].map(line))).toBe(
      'criu/a.c:2: reason 2; criu/a.c:3: reason 3; criu/a.c:4: reason 4',
    );
  });

  it.each([
    [
      'a limit that CRIU only tried to raise',
      "Error (criu/rlimit.c:19): rlimit: Can't setup RLIMIT_NOFILE for self",
    ],
    ['the end of a dump', 'Error (criu/cr-dump.c:2098): Dumping FAILED.'],
    ['the end of a restore', 'Error (criu/cr-restore.c:2536): Restoring FAILED.'],
    ['a warning', 'Warn  (criu/sk-unix.c:1333): Error (in words): none'],
    ["a task's own words", "  7: Restoring '/tmp/Error (x): y'"],
  ])('should not take %s for an error', (_, words) => {
    expect(errorsIn(`(00.000100) ${words}`)).toBeUndefined();
  });

  it('should find none in an empty log, and in one that is missing', () => {
    expect(errorsIn()).toBeUndefined();
    expect(lastCriuErrors(scratch.at('missing.log'))).toBeUndefined();
  });

  it('should read a log with bytes that are no text', () => {
    const log = scratch.at('dump.log');
    writeFileSync(log, Buffer.from('(00.1) \xff\xfe\0\n(00.2) Error (criu/a.c:1): b\xff\n', 'latin1'));
    expect(lastCriuErrors(log)).toMatch(/^criu\/a\.c:1: b.$/);
  });
});
