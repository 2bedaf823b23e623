import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Container, ContainerSpec, Engine } from './engine.ts';
import { freshDirectory } from './fresh-directory.ts';
import { imageAsUser } from './image-as-user.ts';
import { completeLines, waitForLine } from './lines.ts';
import { whichOrThrow } from './paths.ts';
import type { RunOptions } from './run.ts';
import type { Stack } from './stack.ts';
import { Hopeless, waitFor } from './wait.ts';

/** containerd, driven through `ctr`. */
export function ctrEngine(stack: Stack): Engine {
  return {
    name: 'ctr',
    async run(spec) {
      const log = join(freshDirectory(join(stack.dir, 'output'), spec.id), 'log');
      const image = spec.user === undefined ? spec.image : await imageAsUser(stack, spec.image, spec.user);
      const words = [...flagsOf(stack, spec), image, spec.id, ...spec.args];
      if (spec.tty) return ctrContainer(stack, spec.id, log, await runOnTerminal(stack, spec.id, words, log));
      // The container writes into the shim's pipe and the shim into the file: CRIU cannot dump a container
      // that holds a file of the host.
      await stack.ctr(['run', '--detach', '--log-uri', `file://${log}`, ...words], timeoutOf(spec));
      return ctrContainer(stack, spec.id, log);
    },
  };
}

/** Only where one is given: a missing option is the usual one. */
const timeoutOf = ({ timeoutMs }: { timeoutMs?: number | undefined }): RunOptions =>
  timeoutMs === undefined ? {} : { timeoutMs };

function flagsOf(stack: Stack, spec: ContainerSpec): string[] {
  const binary = spec.runtime === 'runc' ? whichOrThrow('runc') : stack.runtime;
  const network = spec.network ?? 'none';
  if (network !== 'none' && network !== 'host') throw new Error(`ctr knows no network '${network}'`);
  return [
    ...['--runc-binary', binary],
    ...(network === 'host' ? ['--net-host'] : []),
    ...Object.entries(spec.env ?? {}).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
    ...(spec.binds ?? []).flatMap(({ source, destination, readOnly }) => [
      '--mount',
      `type=bind,src=${source},dst=${destination},options=rbind:${readOnly ? 'ro' : 'rw'}`,
    ]),
    ...(spec.flags ?? []),
  ];
}

/** `ctr run --tty` insists on a terminal of its own: script(1) makes one. */
async function runOnTerminal(stack: Stack, id: string, words: string[], log: string): Promise<ChildProcess> {
  const ctr = ['ctr', '--address', stack.socket, '--namespace', stack.namespace, 'run', '--tty'];
  const fifos = ['--fifo-dir', join(stack.dir, 'fifo')];
  const command = [...ctr, ...fifos, ...words].map(quoted).join(' ');
  const output = openSync(log, 'a');
  const terminal = spawn('script', ['--quiet', '--flush', '--return', '--command', command, '/dev/null'], {
    env: stack.env,
    stdio: ['pipe', output, output],
  });
  closeSync(output);
  const status = () => statusOf(stack, id);
  await waitFor(`the container ${id} to run`, async () => {
    if (terminal.exitCode !== null) throw new Hopeless(`ctr run ended: ${readFileSync(log, 'utf8')}`);
    return (await status()) === 'running';
  });
  return terminal;
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A container that ctr has begun, and whose output is in a file. */
export function ctrContainer(stack: Stack, id: string, log: string, terminal?: ChildProcess): Container {
  const { ctr, dir, namespace } = stack;
  const output = () => readFileSync(log, { encoding: 'utf8', flag: 'a+' });
  let execs = 0;
  let exitStatus: number | undefined;

  return {
    id,
    ociId: id,
    bundle: join(dir, 'state/io.containerd.runtime.v2.task', namespace, id),
    runcRoot: `/run/containerd/runc/${namespace}`,
    output,
    lines: () => completeLines(output()),
    waitForLine: (pattern, options) => waitForLine(id, output, pattern, options),
    status: () => statusOf(stack, id),
    async pid() {
      const pid = (await taskRow(stack, id))?.pid;
      if (pid === undefined) throw new Error(`the container ${id} has no task`);
      return pid;
    },
    type(text) {
      if (!terminal?.stdin) throw new Error(`the container ${id} was started without a terminal`);
      terminal.stdin.write(text);
    },
    exec(args, options) {
      execs += 1;
      const fifos = ['--fifo-dir', join(dir, 'fifo')];
      return ctr(['tasks', 'exec', ...fifos, '--exec-id', `exec-${execs}`, id, ...args], options);
    },
    kill: async (signal) => void (await ctr(['tasks', 'kill', '--signal', signal, id])),
    pause: async () => void (await ctr(['tasks', 'pause', id])),
    resume: async () => void (await ctr(['tasks', 'resume', id])),
    async checkpoint({ exit = false, imagePath, mayFail = false, timeoutMs } = {}) {
      const fresh = freshDirectory(join(dir, 'images'), id);
      const place = imagePath ?? join(fresh, 'image');
      const paths = ['--image-path', place, '--work-path', join(fresh, 'work')];
      const words = ['tasks', 'checkpoint', ...(exit ? ['--exit'] : []), ...paths, id];
      const ran = await ctr(words, { mayFail, ...timeoutOf({ timeoutMs }) });
      return { ...ran, imagePath: place };
    },
    async waitForExit(options) {
      if (exitStatus !== undefined) return exitStatus;
      if (terminal) {
        await waitFor(`the terminal of ${id} to close`, () => terminal.exitCode !== null, options);
        exitStatus = terminal.exitCode ?? 0;
        return exitStatus;
      }
      await waitFor(
        `the container ${id} to stop`,
        async () => (await statusOf(stack, id)) === 'stopped',
        options,
      );
      // ctr tells the status only while it deletes the task, in a warning.
      const { stderr } = await ctr(['tasks', 'delete', id]);
      exitStatus = Number(/non-zero exit code (\d+)/.exec(stderr)?.[1] ?? 0);
      // The shim copies the last words into the log after the container's end, and nobody waits for it.
      await waitFor(`the log of ${id} to be closed`, () => !isOpen(log), options);
      return exitStatus;
    },
    async remove(options = {}) {
      await ctr(['tasks', 'delete', '--force', id], { mayFail: true, ...options });
      await ctr(['containers', 'delete', id], options);
    },
  };
}

/** Whether any process has a file open; one that ends, or closes a descriptor, under our eyes has not. */
export function isOpen(file: string): boolean {
  const look = <T>(action: () => T, instead: T): T => {
    try {
      return action();
    } catch {
      return instead;
    }
  };
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => join('/proc', pid, 'fd'))
    .flatMap((directory) => look(() => readdirSync(directory), []).map((fd) => join(directory, fd)))
    .some((fd) => look(() => readlinkSync(fd), '') === file);
}

async function statusOf(stack: Stack, id: string) {
  const status = (await taskRow(stack, id))?.status;
  if (status === undefined) return 'gone';
  if (status === 'RUNNING' || status === 'PAUSED' || status === 'STOPPED') {
    return status.toLowerCase() as 'running' | 'paused' | 'stopped';
  }
  throw new Error(`ctr calls the task ${id} '${status}'; expected RUNNING, PAUSED or STOPPED`);
}

async function taskRow({ ctr }: Stack, id: string): Promise<{ pid: number; status: string } | undefined> {
  const rows = (await ctr(['tasks', 'list'])).stdout.split('\n').map((row) => row.split(/\s+/));
  const row = rows.find(([task]) => task === id);
  return row && { pid: Number(row[1]), status: row[2] ?? '' };
}
