import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildBusyboxLayer } from './busybox-layer.ts';
import { freshDirectory } from './fresh-directory.ts';
import { completeLines, waitForLine } from './lines.ts';
import { type Ran, type RunOptions, run } from './run.ts';
import type { Stack } from './stack.ts';
import { type WaitOptions, waitFor } from './wait.ts';

export type BundleSpec = {
  args: string[];
  env?: Record<string, string>;
  terminal?: boolean;
};

/** Where a command runs, which program does it (default: the runtime under test), and more of an environment. */
export type BeginOptions = { cwd?: string; program?: string; env?: Record<string, string> };

/** A call that may outlast itself: the container it has begun writes on into the same pipes. */
export type Call = {
  /** What the runtime and its container have written so far. */
  output(): string;
  lines(): string[];
  waitForLine(pattern: RegExp, options?: WaitOptions): Promise<RegExpExecArray>;
  /** Waits until the runtime has ended; its exit status. */
  status(): Promise<number>;
};

/** An OCI runtime called as people call it: without an engine, on bundles of their own. */
export type DirectRunc = {
  /** runc's `--root`. */
  root: string;
  /** The directory that has the bundles. */
  bundles: string;
  /** Makes a bundle around a fresh plain directory with busybox; returns its path. The container's cgroup bears its name. */
  bundle(name: string, spec: BundleSpec): Promise<string>;
  /** Runs a command to its end. */
  run(words: string[], options?: RunOptions & { program?: string }): Promise<Ran>;
  /** Runs a command whose standard streams become the container's: a `create`, `run`, or `restore`. */
  begin(words: string[], options?: BeginOptions): Call;
  /** What runc says of a container. */
  state(id: string): Promise<{ status: string; pid: number }>;
};

/**
 * Calls the runtime under test of a stack, whose end then sweeps what is left of the containers.
 *
 * @param enter words to put before every call, such as those of nsenter(1).
 */
export async function directRunc(stack: Stack, enter: string[] = []): Promise<DirectRunc> {
  const home = freshDirectory(stack.dir, 'direct');
  const root = join(home, 'runc');
  await buildBusyboxLayer(home);
  const command = (words: string[], program = stack.runtime) => [...enter, program, '--root', root, ...words];
  const runDirect: DirectRunc['run'] = (words, { program, ...options } = {}) => {
    const [file = '', ...args] = command(words, program);
    return run(file, args, { env: stack.env, cwd: home, ...options });
  };

  return {
    root,
    bundles: home,
    async bundle(name, { args, env = {}, terminal = false }) {
      const bundle = join(home, name);
      const rootfs = join(bundle, 'rootfs');
      mkdirSync(rootfs, { recursive: true });
      await run('tar', ['--extract', '--file', join(home, 'layer.tar'), '--directory', rootfs]);
      await run('runc', ['spec', '--bundle', bundle]);
      const file = join(bundle, 'config.json');
      const config = JSON.parse(readFileSync(file, 'utf8'));
      const settings = Object.entries(env).map(([variable, value]) => `${variable}=${value}`);
      Object.assign(config.process, { args, terminal, env: [...config.process.env, ...settings] });
      config.root.readonly = false;
      config.linux.cgroupsPath = `/${stack.namespace}-direct/${name}`;
      writeFileSync(file, JSON.stringify(config));
      return bundle;
    },
    run: runDirect,
    begin(words, { cwd = home, program, env = {} } = {}) {
      const place = mkdtempSync(join(home, 'call-'));
      const [log, status, input] = ['log', 'status', 'input'].map((name) => join(place, name)) as [
        string,
        string,
        string,
      ];
      writeFileSync(log, '');
      writeFileSync(input, '');
      // Pipes of a shell's: Node's own would be sockets, which CRIU cannot dump.
      const script = `input=$1 status=$2 log=$3; shift 3
        tail -f "$input" | { "$@"; echo $? >"$status.new"; mv "$status.new" "$status"; } 2>&1 | cat >>"$log"`;
      const options = { cwd, env: { ...stack.env, ...env }, stdio: 'ignore', detached: true } as const;
      spawn('sh', ['-c', script, 'sh', input, status, log, ...command(words, program)], options).unref();
      const output = () => readFileSync(log, 'utf8');
      return {
        output,
        lines: () => completeLines(output()),
        waitForLine: (pattern, waiting) => waitForLine(words.join(' '), output, pattern, waiting),
        async status() {
          await waitFor(`${words.join(' ')} to end`, () => existsSync(status), {
            timeoutMs: 60_000,
            seen: output,
          });
          return Number(readFileSync(status, 'utf8'));
        },
      };
    },
    async state(id) {
      const { stdout } = await runDirect(['state', id], { program: 'runc' });
      return JSON.parse(stdout) as { status: string; pid: number };
    },
  };
}
