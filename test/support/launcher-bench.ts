import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type FakeRunc, fakeRunc } from './fake-runc.ts';
import { projectRoot } from './paths.ts';

/** What a call of the launcher came to. */
export type Called = { status: number | null; stdout: string; stderr: string; pid: number };

export type CallOptions = {
  env?: Record<string, string>;
  /** Default: the enabled bundle, as the shim has it. */
  cwd?: string;
  /** Which launcher; default: the installation's own. */
  launcher?: string;
};

/** An installed launcher, a fake runc behind it, and bundles to call it with. */
export type LauncherBench = {
  dir: string;
  launcher: string;
  runc: FakeRunc;
  /** runc's `--root`. */
  root: string;
  runDir: string;
  logFile: string;
  configFile: string;
  checkpointRoot: string;
  /** A bundle with TARDIS_ENABLE=1. */
  enabled: string;
  /** The environment of a caller: the least that leads to this bench. */
  env: Record<string, string>;
  /** Writes another bundle; a string is its config.json as it is. */
  bundle(name: string, config: string[] | string): string;
  /** Replaces the host's settings. */
  configure(settings: Record<string, unknown> | string): void;
  call(args: string[], options?: CallOptions): Promise<Called>;
  /** As {@link call}, for words that are no UTF-8. */
  callWithBytes(words: Buffer[], options?: CallOptions): Promise<Called>;
  /** The arguments of every call of runc. */
  received(): string[][];
  /** As {@link received}, byte for byte. */
  bytesReceived(): Buffer[][];
  /** The host's log. */
  logged(): { level: string; msg: string }[];
  [Symbol.dispose](): void;
};

/**
 * A copy of this checkout's programs, built from its sources: a test may damage it, and nobody else's build
 * replaces it under a test's feet.
 */
export function installCopy(): string {
  const dir = mkdtempSync(join(tmpdir(), 'tardis-install-'));
  for (const part of ['bin', 'src', 'scripts', 'package.json']) {
    cpSync(join(projectRoot, part), join(dir, part), { recursive: true });
  }
  symlinkSync(join(projectRoot, 'node_modules'), join(dir, 'node_modules'));
  const built = spawnSync(process.execPath, ['scripts/build.mjs'], { cwd: dir, encoding: 'utf8' });
  if (built.status === 0) return dir;
  rmSync(dir, { recursive: true });
  throw new Error(`cannot build a copy of this checkout: ${built.stderr}`);
}

/** The environment with which `sh` and its tools work, and Tardis finds only what a test gave it. */
const bare = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };

export function launcherBench(installation: string): LauncherBench {
  const dir = mkdtempSync(join(tmpdir(), 'tardis-launcher-'));
  const runc = fakeRunc();
  const places = {
    root: join(dir, 'root'),
    runDir: join(dir, 'run'),
    logFile: join(dir, 'tardis.jsonl'),
    configFile: join(dir, 'tardis.json'),
    checkpointRoot: join(dir, 'checkpoints'),
  };
  mkdirSync(places.root);
  const launcher = join(installation, 'bin/tardis-runc');
  const env = { ...bare, TARDIS_CONFIG: places.configFile };
  const configure: LauncherBench['configure'] = (settings) =>
    writeFileSync(
      places.configFile,
      typeof settings === 'string' ? settings : `${JSON.stringify(settings, null, 2)}\n`,
    );
  const { runDir, logFile, checkpointRoot } = places;
  configure({ realRunc: runc.path, checkpointRoot, logFile, runDir });
  const bundle: LauncherBench['bundle'] = (name, config) => {
    const place = join(dir, name);
    mkdirSync(place);
    const text = typeof config === 'string' ? config : JSON.stringify(specWith(config), null, 2);
    writeFileSync(join(place, 'config.json'), text);
    return place;
  };
  const enabled = bundle('enabled', ['TARDIS_ENABLE=1']);
  const calls = join(dirname(runc.path), 'calls');
  const call: LauncherBench['call'] = (args, options = {}) => {
    const cwd = options.cwd ?? enabled;
    // Every sh sets PWD, the launcher's too: a caller that has none of its own would see one more.
    return finish(options.launcher ?? launcher, args, { cwd, env: { PWD: cwd, ...(options.env ?? env) } });
  };

  return {
    dir,
    launcher,
    runc,
    ...places,
    enabled,
    env,
    bundle,
    configure,
    call,
    async callWithBytes(words, options = {}) {
      const script = join(dir, 'call.sh');
      const line = [Buffer.from(`exec ${options.launcher ?? launcher}`), ...words.map(quotedForShell)];
      writeFileSync(script, joined(line, ' '));
      return call([script], { ...options, launcher: '/bin/sh' });
    },
    received: () => runc.calls().map(({ args }) => args),
    bytesReceived: () =>
      readdirSync(calls)
        .sort()
        .map((name) => split(readFileSync(join(calls, name, 'argv'))).slice(2)), // "sh" and the script
    logged: () =>
      (existsSync(logFile) ? readFileSync(logFile, 'utf8') : '')
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as { level: string; msg: string }),
    [Symbol.dispose]() {
      runc.remove();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** The least that Tardis reads of a config.json. */
function specWith(env: string[]) {
  return {
    ociVersion: '1.0.2',
    root: { path: 'rootfs' },
    process: { args: ['sh'], cwd: '/', env: ['PATH=/bin', ...env] },
    linux: { namespaces: [{ type: 'pid' }] },
  };
}

async function finish(
  file: string,
  args: string[],
  options: { env: Record<string, string>; cwd: string },
): Promise<Called> {
  const child = spawn(file, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said.stderr += text;
  });
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, ...said, pid: child.pid ?? -1 };
}

function quotedForShell(word: Buffer): Buffer {
  return Buffer.from(`'${word.toString('latin1').replaceAll("'", `'\\''`)}'`, 'latin1');
}

function joined(parts: Buffer[], separator: string): Buffer {
  return Buffer.from(parts.map((part) => part.toString('latin1')).join(separator), 'latin1');
}

/** The NUL-terminated words of /proc/PID/cmdline. */
function split(bytes: Buffer): Buffer[] {
  return bytes
    .toString('latin1')
    .split('\0')
    .slice(0, -1)
    .map((word) => Buffer.from(word, 'latin1'));
}
