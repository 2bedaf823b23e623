import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Plan, planFor } from '../../src/cli/plan.ts';
import { parseRuncCommand } from '../../src/cli/runc-command.ts';

const cwd = '/run/containerd/io.containerd.runtime.v2.task/default/job';
const words = (line: string): string[] => line.split(' ').filter(Boolean);
const plan = (line: string): Plan | undefined => planFor(parseRuncCommand(words(line)), cwd);
const planned = (line: string): Plan => {
  const found = plan(line);
  if (!found) throw new Error(`expected a plan for: ${line}`);
  return found;
};

describe('a command line', () => {
  it.each([
    ['create --bundle /b job', 'CREATE', false],
    ['run --bundle /b --detach job', 'RUN', false],
    ['run -d -b /b job', 'RUN', false],
    ['run --bundle /b job', 'RUN', true],
    ['run --detach=false job', 'RUN', true],
    ['restore --image-path /i --detach job', 'RESTORE', false],
    ['restore --image-path /i job', 'RESTORE', true],
    ['start job', 'START', false],
    ['pause job', 'PAUSE', false],
    ['resume job', 'RESUME', false],
    ['kill job 15', 'KILL', true],
    ['kill --all job KILL', 'KILL', true],
    ['delete job', 'DELETE', false],
    ['delete --force job', 'DELETE', false],
    ['checkpoint --image-path /i job', 'CHECKPOINT', false],
    ['checkpoint --leave-running job', 'CHECKPOINT', false],
  ])('should become an event, and say whether runc takes over: %s', (line, type, handsOver) => {
    const { event, id, call } = planned(line);
    expect([event.type, id, planned(line).handsOver]).toEqual([type, 'job', handsOver]);
    expect('call' in event && { ...event.call, argv: [] }).toEqual({ ...call, argv: [] });
    expect(call.argv).toEqual(words(line));
  });

  it('should say whether a run is waited for', () => {
    expect(planned('run --detach job').event).toMatchObject({ type: 'RUN', detach: true });
    expect(planned('run job').event).toMatchObject({ type: 'RUN', detach: false });
  });

  it.each([
    '',
    '--version',
    '--help',
    'state job',
    'events --stats job',
    'exec job sh',
    'ps job',
    'list',
    'features',
    'update --memory 1 job',
    'spec',
    'create',
    'start',
    'start --help job',
    'create --help job',
    'start --unknown job',
    'unknown job',
    '--unknown start job',
    'create --bundle',
    'checkpoint --pre-dump job',
    'checkpoint --lazy-pages job',
    'checkpoint --page-server 1.2.3.4:5 job',
    'checkpoint --parent-path ../p job',
  ])("should be runc's alone: %s", (line) => {
    expect(plan(line)).toBeUndefined();
  });
});

describe('the id', () => {
  it.each(['a', '0', '_', 'A.b-c+d_e', '...', '..a', '.a', 'restore', '6f9b3c3e1d2a'])('may be %s', (id) => {
    expect(planned(`start ${id}`).id).toBe(id);
  });

  it.each(['.', '..', '../a', 'a/b', '/', '/a', 'a/..', 'é', 'a:b', 'a,b', 'a\n', '\n', 'a\0b', '*'])(
    'should be none of Tardis’s as %j',
    (id) => {
      for (const command of ['start', 'create', 'checkpoint', 'delete', 'kill', 'restore']) {
        expect(planFor(parseRuncCommand([command, id]), cwd)).toBeUndefined();
      }
    },
  );

  it('should never be a path, whatever the words', () => {
    const word = fc.oneof(
      fc.string(),
      fc.constantFrom('start', 'create', '--', '..', 'a/b', '--bundle', '/b'),
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 6 }), (argv) => {
        const found = planFor(parseRuncCommand(argv), cwd);
        if (found) expect(found.id).toMatch(/^(?!\.\.?$)[A-Za-z0-9_+.-]+$/);
      }),
    );
  });
});

describe('the places', () => {
  it.each([
    ['create job', '/run/runc', cwd],
    ['--root /r create --bundle /b job', '/r', '/b'],
    [
      '--root ../state create --bundle bundle job',
      '/run/containerd/io.containerd.runtime.v2.task/default/state',
      `${cwd}/bundle`,
    ],
    ['--root /r/../s/ run -b .. -d job', '/s', '/run/containerd/io.containerd.runtime.v2.task/default'],
    ['--root /one --root=/two restore --bundle=/b --detach job', '/two', '/b'],
  ])('should be absolute, as runc finds them from its working directory: %s', (line, root, bundle) => {
    expect(planned(line)).toMatchObject({ root, bundle });
  });

  it.each(['start', 'pause', 'resume', 'delete', 'kill', 'checkpoint'])(
    'should not include a bundle for %s, which the index knows',
    (command) => {
      expect(planned(`--root r ${command} job`)).toMatchObject({ root: `${cwd}/r` });
      expect(planned(`${command} job`)).not.toHaveProperty('bundle');
    },
  );
});

describe('the call', () => {
  it('should keep the global flags, but for those of the log', () => {
    const { call } = planned('--root r --log l.json --log-format=json --debug --systemd-cgroup start job');
    expect(call.globals).toEqual(['--root', 'r', '--debug', '--systemd-cgroup']);
    expect(call.log).toEqual({ file: `${cwd}/l.json`, format: 'json' });
  });

  it.each([
    ['checkpoint --tcp-established job', ['tcp-established']],
    ['checkpoint -tcp-established job', ['tcp-established']],
    ['checkpoint --tcp-established=true job', ['tcp-established']],
    ['checkpoint --tcp-established=false job', []],
    ['checkpoint --tcp-established --tcp-established=false job', []],
    ['checkpoint --work-path --tcp-established job', []],
    ['--systemd-cgroup=1 --debug checkpoint --file-locks job', ['systemd-cgroup', 'debug', 'file-locks']],
  ])('should name the switches that are on, however they were spelled: %s', (line, switches) => {
    expect(planned(line).call.switches).toEqual(switches);
  });

  it.each([
    ['--log /l start job', { file: '/l', format: 'text' }],
    ['--log /one --log /two --log-format json start job', { file: '/two', format: 'json' }],
  ])('should say where the log goes: %s', (line, log) => {
    expect(planned(line).call.log).toEqual(log);
  });

  it('should name no log where the caller named none', () => {
    expect(planned('--log-format json start job').call).not.toHaveProperty('log');
    expect(planFor(parseRuncCommand(['--log', '', 'start', 'job']), cwd)?.call).not.toHaveProperty('log');
  });

  it.each(['create', 'run --detach'])(
    'should carry over what a restore in the place of %s takes too',
    (command) => {
      const flags = '--pid-file init.pid --console-socket=/tmp/pty.sock --no-pivot';
      const { call } = planned(`${command} --bundle /b ${flags} --no-new-keyring --preserve-fds 2 job`);
      expect(call.restoreFlags).toEqual(words(flags));
    },
  );

  it('should carry over nothing where there is nothing', () => {
    expect(planned('create --bundle /b job').call.restoreFlags).toEqual([]);
  });
});

describe('the caller', () => {
  const shim = { pid: 7, startTime: 70, at: 700 };

  it.each(['pause job', 'checkpoint job', 'restore --detach job', 'kill job'])(
    'is part of the call if it is a shim: %s',
    (line) => {
      const found = planFor(parseRuncCommand(words(line)), cwd, shim);
      expect(found?.call.shim).toEqual(shim);
      expect(found && 'call' in found.event && found.event.call.shim).toEqual(shim);
    },
  );

  it('is not if it is anybody else', () => {
    expect(planned('pause job').call).not.toHaveProperty('shim');
  });
});

describe('a signal', () => {
  it.each([
    'kill job',
    'kill job KILL',
    'kill job 9',
    'kill --all job SIGTERM',
    'kill job sigint',
    'kill job 37',
  ])('should count as asking the job to end: %s', (line) => {
    expect(planned(line).endsJobBy).toBeDefined();
  });

  it.each([
    'kill job HUP',
    'kill job SIGUSR1',
    'kill job 12',
    'kill job winch',
    'kill job 0',
    'kill job SIGSTOP',
  ])('should not count as that: %s', (line) => {
    expect(planned(line).endsJobBy).toBeUndefined();
  });
});

describe('a checkpoint', () => {
  const request = (line: string) => {
    const { event } = planned(line);
    return event.type === 'CHECKPOINT' ? event.request : undefined;
  };

  it("should be dumped into the caller's directories, with the caller's other flags as they came", () => {
    const flags = '--tcp-established --ext-unix-sk=true --manage-cgroups-mode soft --empty-ns=network';
    expect(request(`checkpoint --image-path i --work-path ../w --leave-running ${flags} job`)).toEqual({
      leaveRunning: true,
      imagePath: `${cwd}/i`,
      workPath: '/run/containerd/io.containerd.runtime.v2.task/default/w',
      flags: words(flags),
    });
  });

  it('should be dumped where runc would, where the caller says nothing', () => {
    expect(request('checkpoint job')).toEqual({
      leaveRunning: false,
      imagePath: `${cwd}/checkpoint`,
      flags: [],
    });
  });

  it('should end the job where the flag says so, the last one counting', () => {
    expect(request('checkpoint --leave-running=false job')?.leaveRunning).toBe(false);
    expect(request('checkpoint --leave-running --leave-running=false job')?.leaveRunning).toBe(false);
    expect(request('checkpoint --leave-running=false --leave-running=1 job')?.leaveRunning).toBe(true);
  });
});

describe('a restore', () => {
  it.each([
    ['restore job', 'restore --file-locks job'],
    [
      '--root restore restore --bundle restore restore',
      '--root restore restore --file-locks --bundle restore restore',
    ],
    ['--root /r restore --detach --bundle /b job', '--root /r restore --file-locks --detach --bundle /b job'],
    ['restore job --detach --bundle=/b', 'restore --file-locks job --detach --bundle=/b'],
  ])('should be told that an image may hold locks, right after its name: %s', (line, argv) => {
    const { event, call } = planned(line);
    expect('call' in event && event.call.argv).toEqual(words(argv));
    expect(call.argv).toEqual(words(line));
  });

  it('should be the only command that is told', () => {
    for (const line of [
      'create restore',
      'run -d restore',
      'start restore',
      'kill restore 9',
      'checkpoint restore',
    ]) {
      const { event } = planned(line);
      expect('call' in event && event.call.argv).toEqual(words(line));
    }
  });
});
