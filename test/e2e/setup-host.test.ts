import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { processes } from '../../src/actions/processes.ts';
import { textOf } from '../../src/actions/read-or-nothing.ts';
import { fixturesDir, hostPath, projectRoot, whichOrThrow } from '../support/paths.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Ran, run } from '../support/run.ts';

describe.skipIf(requireRealStack().skip)('scripts/setup-host.sh', () => {
  let dir: string;
  const path = (...names: string[]) => join(dir, ...names);

  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'setup-host-'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  /** A directory for PATH whose criu does as it is told (test/fixtures/bad-criu). */
  function fakeCriu(name: string, does: string): string {
    const bin = path(name);
    mkdirSync(bin, { recursive: true });
    copyFileSync(join(fixturesDir, 'bad-criu'), join(bin, 'criu'));
    writeFileSync(join(bin, 'criu.does'), does);
    writeFileSync(join(bin, 'criu.real'), whichOrThrow('criu'));
    return bin;
  }

  /** Runs a script with its temporary files in a directory of their own; what it leaves there, in cgroups, and of processes. */
  async function runIn(
    name: string,
    script: string,
    bin: string[],
    env = {},
  ): Promise<Ran & { left: string[] }> {
    const TMPDIR = path(`${name}-tmp`);
    mkdirSync(TMPDIR);
    const ran = await run(join(projectRoot, script), [], {
      env: { PATH: [...bin, hostPath()].join(delimiter), TMPDIR, TARDIS_PROBE_SECONDS: '2', ...env },
      mayFail: true,
      timeoutMs: 60_000,
    });
    return { ...ran, left: [...readdirSync(TMPDIR), ...processesWith(TMPDIR), ...mountsWith(TMPDIR)] };
  }
  /** Those that name the directory: runc and criu; and those whose root file system is in it: a container's. */
  const processesWith = (text: string): string[] =>
    processes()
      .filter((pid) => `${textOf(`/proc/${pid}/cmdline`)}${textOf(`/proc/${pid}/mountinfo`)}`.includes(text))
      .map((pid) => textOf(`/proc/${pid}/cmdline`).replaceAll('\0', ' '));
  const mountsWith = (text: string): string[] =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(text));

  const bad = [
    { does: 'hang-dump', says: /^it cannot dump a container that listens: no end within 2 s/ },
    { does: 'hang-restore', says: /^it cannot restore what it has dumped: no end within 2 s/ },
    { does: 'crash', says: /^it cannot dump a container that listens: / },
    { does: 'lie-dump', says: /^it cannot restore what it has dumped: / },
    {
      does: 'lie-restore',
      says: /^it (cannot restore what it has dumped: |says that it has restored a container, and nothing listens)/,
    },
  ];
  test.concurrent.each(bad)(
    'probe-criu.sh rejects a CRIU of the kind "$does" in one line and leaves nothing',
    async ({ does, says }) => {
      const { exitCode, stdout, left } = await runIn(does, 'scripts/probe-criu.sh', [
        fakeCriu(`criu-${does}`, does),
      ]);
      expect(stdout).toMatch(says);
      expect(stdout.split('\n')).toHaveLength(1);
      expect(exitCode).toBe(1);
      expect(left).toEqual([]);
    },
  );

  test('probe-criu.sh accepts a CRIU that works, and says nothing', async () => {
    const { exitCode, stdout, left } = await runIn('good', 'scripts/probe-criu.sh', [
      fakeCriu('criu-good', 'well'),
    ]);
    expect([exitCode, stdout, left]).toEqual([0, '', []]);
  });

  test.each(['0', '-1', 'soon'])(
    'probe-criu.sh refuses a limit of %s seconds and says what it expects',
    async (limit) => {
      const ran = await runIn(`limit${limit}`, 'scripts/probe-criu.sh', [], { TARDIS_PROBE_SECONDS: limit });
      expect(ran.stdout).toBe(`TARDIS_PROBE_SECONDS is '${limit}': expected whole seconds, 1 or more`);
      expect(ran.exitCode).toBe(2);
    },
  );

  test('setup-host.sh says why it rejects a CRIU that hangs, and installs the next one', async () => {
    const bin = fakeCriu('host', 'hang-dump');
    // Fetches nothing: the last release's CRIU is this host's own, an earlier one's crashes.
    writeFileSync(
      join(bin, 'mmdebstrap'),
      `#!/bin/sh
cat >/dev/null
for word do last=$suite suite=$directory directory=$source source=$word; done
case $suite in forky) does=well ;; *) does=crash ;; esac
mkdir -p "$directory/usr/sbin"
cp ${join(bin, 'criu.fixture')} "$directory/usr/sbin/criu"
cp ${join(bin, 'criu.real')} "$directory/usr/sbin"
echo $does >"$directory/usr/sbin/criu.does"
for loader in usr/lib64/ld-linux-x86-64.so.2 usr/lib/ld-linux-aarch64.so.1; do
  mkdir -p "$directory/\${loader%/*}"
  printf '#!/bin/sh\\nshift 2; exec "$@"\\n' >"$directory/$loader"
  chmod 755 "$directory/$loader"
done
`,
      { mode: 0o755 },
    );
    copyFileSync(join(bin, 'criu'), join(bin, 'criu.fixture'));
    const { exitCode, stdout, stderr, left } = await runIn('host', 'scripts/setup-host.sh', [bin], {
      TARDIS_CRIU_HOME: path('criu-home'),
      TARDIS_CRIU_COMMAND: join(bin, 'criu'),
    });
    expect([exitCode, stderr]).toEqual([0, '']);
    const rejected = stdout.split('\n').filter((line) => line.includes('rejected'));
    expect(rejected[0]).toMatch(
      /^setup-host: rejected \S+\/host\/criu \(Version: [\d.]+\): it cannot dump a container that listens: no end within 2 s/,
    );
    expect(rejected).toHaveLength(stdout.includes("trying trixie's") ? 2 : 1);
    expect(stdout).toMatch(/setup-host: criu check: Looks good/);
    expect(readFileSync(join(bin, 'criu'), 'utf8')).toContain('--library-path');
    expect(left).toEqual([]);
  });
});
