import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, constants, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { installCopy, type LauncherBench, launcherBench } from '../support/launcher-bench.ts';

let installation: string;
let bench: LauncherBench;

beforeAll(() => {
  installation = installCopy();
});
afterAll(() => rmSync(installation, { recursive: true }));
beforeEach(() => {
  bench = launcherBench(installation);
});
afterEach(() => bench[Symbol.dispose]());

describe('the real runc behind the launcher', () => {
  /** Lines that reach it in each of the three ways: through sh, through Node in its place, as Node's child. */
  const ways: { title: string; line: () => string[] }[] = [
    { title: 'a call that sh passes on', line: () => ['--root', bench.root, 'state', 'web'] },
    {
      title: 'a call that Node passes on',
      line: () => ['--root', bench.root, 'create', '--no-such-flag', '--bundle', bench.enabled, 'web'],
    },
    {
      title: 'a create that Tardis does',
      line: () => ['--root', bench.root, 'create', '--bundle', bench.enabled, 'web'],
    },
  ];

  const awkward = {
    EMPTY: '',
    LINES: 'a\nb',
    QUOTES: `'"\\`,
    ACCENT: 'é',
    EQUALS: 'a=b=c',
    LANG: 'C.UTF-8',
    TARDIS_REAL_RUNC: '',
    NODE_PATH: '/nowhere',
  };

  /** Puts a script before the fake runc, which then does as always. */
  function realRuncThat(script: string): string {
    const witness = join(bench.dir, 'witness');
    writeFileSync(witness, `#!/bin/sh\n${script}\nexec ${bench.runc.path} "$@"\n`);
    chmodSync(witness, 0o755);
    bench.configure({ realRunc: witness, logFile: bench.logFile, runDir: bench.runDir });
    return witness;
  }

  it.each(ways)('should get the environment as it was: $title', async ({ line }) => {
    const env = { ...bench.env, ...awkward, PWD: bench.enabled };
    await bench.call(line(), { env });
    expect(bench.runc.calls().map((call) => call.env)).toEqual([env]);
  });

  it.each(ways)("should get the caller's NODE_ variables, which Node does not: $title", async ({ line }) => {
    const env = {
      ...bench.env,
      PWD: bench.enabled,
      NODE_OPTIONS: '--require=/nowhere/spy.js',
      NODE_EXTRA_CA_CERTS: '/nowhere/certificates.pem',
    };
    expect(await bench.call(line(), { env })).toMatchObject({ status: 0, stderr: '' });
    await bench.call([...line().slice(0, -1), 'web-2'], { env: { ...env, NODE_OPTIONS: '' } });
    expect(bench.runc.calls().map((call) => call.env)).toEqual([env, { ...env, NODE_OPTIONS: '' }]);
  });

  // sh keeps an imported variable exported when it is assigned to.
  it.each(ways)(
    "should keep variables that bear the names of the launcher's own: $title",
    async ({ line }) => {
      // Its own, less the mark that keeps them apart: what a caller would happen to use.
      const names = /^\s*(?:for )?_tardis_([a-z]+)(?:=| (?:in|do)\b)/gm;
      const own = [...readFileSync(bench.launcher, 'utf8').matchAll(names)].map(([, name]) => name as string);
      expect(own).toEqual(expect.arrayContaining(['root', 'bundle', 'command', 'real']));
      const env = {
        ...bench.env,
        PWD: bench.enabled,
        ...Object.fromEntries(own.map((name) => [name, `the caller's ${name}`])),
      };
      await bench.call(line(), { env });
      expect(bench.runc.calls().map((call) => call.env)).toEqual([env]);
    },
  );

  it.each(ways)('should stand where the caller stood: $title', async ({ line }) => {
    await bench.call(line(), { cwd: bench.root });
    expect(bench.runc.calls().map(({ cwd }) => cwd)).toEqual([bench.root]);
  });

  /** Fifos as standard streams: what a child does to their flags, its caller and the job would see. */
  function openStreams() {
    const fifos = ['in', 'out', 'err'].map((name) => join(bench.dir, name));
    spawnSync('mkfifo', fifos);
    const fds = fifos.map((fifo) => openSync(fifo, constants.O_RDWR));
    return {
      fifos,
      fds,
      [Symbol.dispose]: () => {
        for (const fd of fds) closeSync(fd);
      },
    };
  }

  /** Calls a program with `stdio` and at most 777 open files. */
  async function callWithLimit(program: string, line: string[], stdio: number[]): Promise<void> {
    const script = 'ulimit -Sn 777 && exec "$0" "$@"';
    const child = spawn('/bin/sh', ['-c', script, program, ...line], {
      cwd: bench.enabled,
      env: bench.env,
      stdio,
    });
    expect(await once(child, 'close')).toEqual([0, null]);
  }

  it.each(ways)("should have the caller's descriptors and no others: $title", async ({ line }) => {
    using streams = openStreams();
    for (const program of [bench.runc.path, bench.launcher])
      await callWithLimit(program, line(), streams.fds);
    const [direct, through] = bench.runc
      .calls()
      .map(({ fds }) => new Map([...fds].map(([fd, { target }]) => [fd, target])));
    expect([0, 1, 2].map((fd) => through?.get(fd))).toEqual(streams.fifos);
    // The test runner may have descriptors of its own to hand on: none may be new.
    for (const [fd, target] of through ?? []) expect(direct?.get(fd)).toBe(target);
  });

  it.each(ways)(
    "should have the caller's limit of open files, which Node raises: $title",
    async ({ line }) => {
      const limits = join(bench.dir, 'limits');
      const witness = realRuncThat(`ulimit -Sn >>${limits}; ulimit -Hn >>${limits}`);
      using streams = openStreams();
      for (const program of [witness, bench.launcher]) await callWithLimit(program, line(), streams.fds);
      const [soft, hard, ...through] = readFileSync(limits, 'utf8').trim().split('\n');
      expect(soft).toBe('777');
      expect(through).toEqual([soft, hard]);
    },
  );

  const blocks = async ({ line }: { line: () => string[] }) => {
    using streams = openStreams();
    await callWithLimit(bench.launcher, line(), streams.fds);
    const flags = (fd: number) =>
      /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
    const later = streams.fds.map((fd) => Number.parseInt(flags(fd) ?? '', 8));
    const seen = bench.runc
      .calls()
      .flatMap(({ fds }) => [0, 1, 2].map((fd) => fds.get(fd)?.flags ?? Number.NaN));
    expect([...seen, ...later].map((one) => one & constants.O_NONBLOCK)).toEqual([0, 0, 0, 0, 0, 0]);
  };
  const blocking = 'should have standard streams that block: $title';
  // Importing node:process, as execa does, would open all three streams, and that makes pipes non-blocking.
  it.each(ways)(blocking, blocks);

  it.each(ways.slice(0, 2))('should be the very process that was called: $title', async ({ line }) => {
    realRuncThat('echo $$; exit 0');
    const { stdout, pid } = await bench.call(line());
    expect(Number(stdout)).toBe(pid);
  });

  // runc takes LISTEN_FDS from every caller, and as many as `create --preserve-fds` says.
  const keepsDescriptor = async ({ line }: { line: () => string[] }) => {
    const fifo = join(bench.dir, 'extra');
    spawnSync('mkfifo', [fifo]);
    const fd = openSync(fifo, constants.O_RDWR);
    const child = spawn(bench.launcher, line(), {
      cwd: bench.enabled,
      env: { ...bench.env, LISTEN_FDS: '1' },
      stdio: ['ignore', 'ignore', 'ignore', fd],
    });
    await once(child, 'close');
    closeSync(fd);
    expect(bench.runc.calls().map(({ fds }) => fds.get(3)?.target)).toEqual([fifo]);
  };
  const more = 'should get a descriptor beside the standard ones: $title';
  // Node would mark every descriptor that it inherits close-on-exec: such a call never gets that far.
  it.each(ways)(more, keepsDescriptor);
});
