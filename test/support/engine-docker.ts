import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Container, ContainerSpec, Engine } from './engine.ts';
import { freshDirectory } from './fresh-directory.ts';
import { completeLines, waitForLine } from './lines.ts';
import type { Stack } from './stack.ts';
import { waitFor } from './wait.ts';

/** The stack's dockerd, driven through `docker`. */
export function dockerEngine(stack: Stack): Engine {
  if (!stack.hasDocker) throw new Error('this stack has no dockerd; start it with { docker: true }');
  return {
    name: 'docker',
    async run(spec) {
      const words = [...flagsOf(spec), spec.image, ...spec.args];
      const { stdout } = await stack.docker(['run', '--detach', '--name', spec.id, ...words]);
      return dockerContainer(stack, spec.id, stdout.trim());
    },
  };
}

function flagsOf(spec: ContainerSpec): string[] {
  return [
    ...['--runtime', spec.runtime ?? 'tardis'],
    ...['--network', spec.network ?? 'none'],
    ...(spec.tty ? ['--tty'] : []),
    ...(spec.user === undefined ? [] : ['--user', spec.user]),
    ...Object.entries(spec.env ?? {}).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
    ...(spec.binds ?? []).flatMap(({ source, destination, readOnly }) => [
      '--mount',
      `type=bind,source=${source},target=${destination}${readOnly ? ',readonly' : ''}`,
    ]),
    ...(spec.flags ?? []),
  ];
}

function dockerContainer(stack: Stack, id: string, ociId: string): Container {
  const { docker, dir, namespace } = stack;
  const output = () => outputOf(join(dir, 'docker/containers', ociId, `${ociId}-json.log`));
  const inspect = async (format: string) => (await docker(['inspect', '--format', format, id])).stdout.trim();

  const status: Container['status'] = async () => {
    const ran = await docker(['inspect', '--format', '{{.State.Status}}', id], { mayFail: true });
    if (ran.exitCode !== 0) return 'gone';
    const word = ran.stdout.trim();
    return word === 'running' || word === 'paused' ? word : 'stopped';
  };

  return {
    id,
    ociId,
    bundle: join(dir, 'state/io.containerd.runtime.v2.task', `${namespace}-docker`, ociId),
    runcRoot: join(dir, 'exec/runtime-runc', `${namespace}-docker`),
    output,
    lines: () => completeLines(output()),
    waitForLine: (pattern, options) => waitForLine(id, output, pattern, options),
    status,
    pid: async () => Number(await inspect('{{.State.Pid}}')),
    type() {
      throw new Error('typing into a container is only there for the ctr engine');
    },
    exec: (args, options) => docker(['exec', id, ...args], options),
    kill: async (signal) => void (await docker(['kill', '--signal', signal, id])),
    pause: async () => void (await docker(['pause', id])),
    resume: async () => void (await docker(['unpause', id])),
    async checkpoint({ exit = false, imagePath, mayFail = false } = {}) {
      const place = imagePath ?? freshDirectory(join(dir, 'images'), id);
      const name = basename(place);
      const flags = [...(exit ? [] : ['--leave-running']), '--checkpoint-dir', place];
      const ran = await docker(['checkpoint', 'create', ...flags, id, name], { mayFail: true });
      // Of dockerd 20.10's own making, seen with plain runc, too: it stores what the runtime has made whole already.
      const isStored = /content sha256:\w+: already exists/.test(ran.stderr);
      if (ran.exitCode !== 0 && !isStored && !mayFail) throw new Error(`${ran.command}: ${ran.stderr}`);
      return { ...ran, exitCode: isStored ? 0 : ran.exitCode, imagePath: join(place, name) };
    },
    async waitForExit(options) {
      await waitFor(`the container ${id} to stop`, async () => (await status()) === 'stopped', options);
      return Number(await inspect('{{.State.ExitCode}}'));
    },
    remove: async () => void (await docker(['rm', '--force', '--volumes', id])),
  };
}

// Read where Docker writes it: `docker logs` would be one more process for every look.
function outputOf(file: string): string {
  return readFileSync(file, { encoding: 'utf8', flag: 'a+' })
    .split('\n')
    .slice(0, -1)
    .map((line) => (JSON.parse(line) as { log: string }).log)
    .join('');
}
