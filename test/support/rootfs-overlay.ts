import { mkdtempSync } from 'node:fs';
import { mkdir, realpath } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa, execaSync } from 'execa';
import { mountEnvironment } from '../../src/actions/rootfs-base.ts';

/** A mounted overlay. */
export interface TestOverlay {
  rootfs: string;
  upperdir: string;
  workdir: string;
}

/** A directory of its own for one test, with overlays that `close` unmounts whatever happened. */
export class Lab {
  readonly directory: string;
  readonly #mounted: string[] = [];

  constructor() {
    this.directory = mkdtempSync(join(tmpdir(), 'tardis-rootfs-'));
  }

  /** Makes a directory and runs a shell script in it. */
  async make(name: string, script = ''): Promise<string> {
    const directory = join(this.directory, name);
    await mkdir(directory, { recursive: true });
    await run(directory, script);
    return realpath(directory);
  }

  /** Mounts an overlay, fresh unless its name has been used before; then its changes are there again. */
  async overlay(name: string, lowerdirs: string[], options = ''): Promise<TestOverlay> {
    const rootfs = await this.make(`${name}/rootfs`);
    const upperdir = await this.make(`${name}/upper`);
    const workdir = await this.make(`${name}/work`);
    const layers = `lowerdir=${lowerdirs.join(':')},upperdir=${upperdir},workdir=${workdir}`;
    await this.mount(
      ['-t', 'overlay', '-o', options === '' ? layers : `${layers},${options}`, 'overlay'],
      rootfs,
    );
    return { rootfs, upperdir, workdir };
  }

  async mount(args: string[], on: string, cwd = this.directory): Promise<void> {
    await execa('mount', [...args, on], { cwd, env: mountEnvironment });
    this.#mounted.push(on);
  }

  close(): void {
    for (const path of this.#mounted.reverse()) execaSync('umount', ['--lazy', path], { reject: false });
    execaSync('rm', ['-rf', '--one-file-system', this.directory]);
  }
}

/** Runs a shell script; the first failing command fails it. */
export async function run(cwd: string, script: string): Promise<void> {
  await execa('sh', ['-euc', script], { cwd });
}

/**
 * Why overlays cannot be tested here; undefined when they can. In CI that is a failure, not a reason to skip.
 */
export function overlayObstacle(): string | undefined {
  const obstacle = findObstacle();
  if (obstacle !== undefined && process.env.CI === 'true')
    throw new Error(`overlays must work in CI: ${obstacle}`);
  if (obstacle !== undefined) process.stderr.write(`skipping overlay tests: ${obstacle}\n`);
  return obstacle;
}

function findObstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'mounting an overlay needs root';
  const script = `
    for tool in getfattr setfattr setpriv unshare; do command -v $tool >/dev/null || { echo "$tool is missing" >&2; exit 1; }; done
    mount -t tmpfs tmpfs /tmp; cd /tmp; mkdir l u w m
    mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay m`;
  const { exitCode, stderr } = execaSync('unshare', ['--mount', 'sh', '-euc', script], { reject: false });
  return exitCode === 0 ? undefined : stderr || 'an overlay cannot be mounted';
}

/** Shell words that leave a bound socket behind. */
export function bindSocket(path: string): string {
  return `perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) and bind(S, sockaddr_un("${path}")) or die $!'`;
}
