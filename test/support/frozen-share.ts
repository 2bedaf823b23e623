import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './run.ts';
import { waitFor } from './wait.ts';

/** A file system for images that can be told to answer nobody, as an NFS server that is gone. */
export type Share = {
  /** Where it is mounted. */
  path: string;
  /** From now on whoever asks it sleeps in the kernel. */
  stop(): Promise<void>;
  /** It answers again, and those that sleep go on. */
  answer(): Promise<void>;
  /** Takes it off the host. */
  remove(): Promise<void>;
};

/** An ext4 on a loop device: frozen by fsfreeze(8), it can be read and not written to. */
export async function loopShare(dir: string): Promise<Share> {
  const [file, path] = [join(dir, 'share.img'), join(dir, 'share')];
  mkdirSync(path);
  writeFileSync(file, '');
  truncateSync(file, 256 << 20);
  await run('mkfs.ext4', ['-q', file]);
  await run('mount', ['-o', 'loop', file, path]);
  const answer = async () => void (await run('fsfreeze', ['--unfreeze', path], { mayFail: true }));
  return {
    path,
    stop: async () => void (await run('fsfreeze', ['--freeze', path])),
    answer,
    async remove() {
      await answer();
      await run('umount', ['--lazy', path], { mayFail: true });
      rmSync(file, { force: true });
    },
  };
}

/** A FUSE file system over a directory, whose server is stopped: nothing of it can be read or written then. */
export async function fuseShare(dir: string): Promise<Share> {
  const [below, path] = [join(dir, 'below'), join(dir, 'fuse')];
  mkdirSync(below, { mode: 0o700 });
  mkdirSync(path);
  const server = spawn('bindfs', ['-f', below, path], { stdio: 'ignore', detached: true });
  server.unref();
  await waitFor('the file system to be mounted', () =>
    readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${path} `),
  );
  return {
    path,
    stop: async () => void server.kill('SIGSTOP'),
    answer: async () => void server.kill('SIGCONT'),
    async remove() {
      server.kill('SIGCONT');
      await run('umount', ['--lazy', path], { mayFail: true });
    },
  };
}
