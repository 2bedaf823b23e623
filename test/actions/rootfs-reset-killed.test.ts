import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { resetRootfs } from '../../src/actions/rootfs-reset.ts';
import { saveRootfs } from '../../src/actions/rootfs-save.ts';
import { rootfsListing } from '../support/rootfs-digest.ts';
import { Lab, overlayObstacle, run } from '../support/rootfs-overlay.ts';

const obstacle = overlayObstacle();
let lab: Lab;
beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab.close());

/** Starts resetRootfs in a process of its own. */
function startReset(rootfs: string, saved: string): ChildProcess {
  const program = `
    const { resetRootfs } = await import(${JSON.stringify(new URL('../../src/actions/rootfs-reset.ts', import.meta.url))});
    await resetRootfs(${JSON.stringify(rootfs)}, ${JSON.stringify(saved)});`;
  return spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'ignore' });
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** Waits for the process's tar that was told to do `doing`, lets it work for a moment and stops it. */
async function stopTar(parent: ChildProcess, doing: string[]): Promise<number> {
  while (parent.exitCode === null) {
    for (const pid of read(`/proc/${parent.pid}/task/${parent.pid}/children`).split(' ').filter(Boolean)) {
      const [program, ...args] = read(`/proc/${pid}/cmdline`).split('\0');
      if (program !== 'tar' || !doing.every((arg) => args.includes(arg))) continue;
      await pause(3);
      process.kill(Number(pid), 'SIGSTOP');
      return Number(pid);
    }
    await pause(1);
  }
  throw new Error('resetRootfs ended before it could be killed');
}

function isAlive(pid: number): boolean {
  return /^State:\s+[^ZX]/m.test(read(`/proc/${pid}/status`));
}

describe.skipIf(obstacle !== undefined)('resetRootfs, killed half way', () => {
  it.each([
    ['bringing the image back', ['--extract', '--file=-']],
    ['unpacking the archive', ['--extract', '--file']],
  ])(
    'should leave no tar behind that writes on, and come right when run again, killed %s',
    async (_, doing) => {
      const image = await lab.make('image', 'for n in $(seq 2000); do echo base >$n; done');
      const source = await lab.overlay('source', [image]);
      await run(source.rootfs, 'for n in $(seq 1000); do head -c 20000 /dev/zero >$n; done; rm 1007');
      const saved = await lab.make('saved');
      await saveRootfs(source.rootfs, saved);

      const { rootfs } = await lab.overlay('target', [image]);
      await run(rootfs, 'rm [1-9]; mkdir -p own/d; for n in $(seq 50 2000); do echo own >>$n; done');
      const child = startReset(rootfs, saved);
      const ended = new Promise((resolve) => child.once('exit', resolve));
      const tar = await stopTar(child, doing);
      child.kill('SIGKILL');
      await ended;
      await pause(100);
      const orphan = isAlive(tar);
      if (orphan) process.kill(tar, 'SIGKILL');
      expect(orphan).toBe(false);

      await resetRootfs(rootfs, saved);
      expect(await rootfsListing(rootfs)).toEqual(await rootfsListing(source.rootfs));
    },
  );
});
