import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { resetRootfs } from '../../src/actions/rootfs-reset.ts';
import { saveRootfs } from '../../src/actions/rootfs-save.ts';
import { rootfsListing } from '../support/rootfs-digest.ts';
import { Lab, overlayObstacle } from '../support/rootfs-overlay.ts';

const obstacle = overlayObstacle();
const imageLab = new Lab();
const image: string[] = [];
beforeAll(async () => {
  if (obstacle !== undefined) return;
  image.push(
    await imageLab.make('top', 'mkdir -p a/b; echo top >a/f; mknod b c 0 0; ln -s a d'),
    await imageLab.make(
      'bottom',
      'mkdir -p a/a a/b b/a c; for f in a/a/f a/b/f b/f f; do echo $f >$f; done; ln f c/f',
    ),
  );
});
afterAll(() => imageLab.close());

/** One file operation; one that makes no sense where it is done fails and changes nothing. */
type Step = (root: string) => void;

/** Writes to a file, but does not wait for the reader of a fifo. */
function put(file: string, text: string, flag: number): void {
  const fd = openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_NONBLOCK | flag);
  writeSync(fd, text);
  closeSync(fd);
}

/** Links files and symlinks only: of a fifo with two names tar makes two fifos. */
function link(from: string, to: string): void {
  if (!lstatSync(from).isFIFO()) linkSync(from, to);
}

const names = ['a', 'b', 'c', 'd', 'f'];
const path = fc
  .array(fc.constantFrom(...names), { minLength: 1, maxLength: 3 })
  .map((parts) => parts.join('/'));
const two = fc.tuple(path, path);
const shown = (name: string, args: unknown[], step: Step): Step =>
  Object.assign(step, { toString: () => `${name} ${args.join(' ')}` });

const step: fc.Arbitrary<Step> = fc.oneof(
  path.map((to) => shown('write', [to], (root) => put(`${root}/${to}`, `new ${to}`, constants.O_TRUNC))),
  path.map((to) => shown('append', [to], (root) => put(`${root}/${to}`, 'more', constants.O_APPEND))),
  path.map((to) => shown('mkdir', [to], (root) => mkdirSync(`${root}/${to}`))),
  path.map((to) => shown('rm', [to], (root) => rmSync(`${root}/${to}`, { recursive: true }))),
  path.map((to) =>
    shown('empty', [to], (root) => {
      rmSync(`${root}/${to}`, { recursive: true });
      mkdirSync(`${root}/${to}`);
    }),
  ),
  two.map(([from, to]) => shown('mv', [from, to], (root) => renameSync(`${root}/${from}`, `${root}/${to}`))),
  two.map(([from, to]) => shown('ln', [from, to], (root) => link(`${root}/${from}`, `${root}/${to}`))),
  two.map(([from, to]) => shown('ln -s', [from, to], (root) => symlinkSync(from, `${root}/${to}`))),
  fc
    .tuple(path, fc.integer({ min: 0, max: 0o7777 }))
    .map(([to, mode]) => shown('chmod', [mode, to], (root) => chmodSync(`${root}/${to}`, mode))),
  fc
    .tuple(path, fc.nat(99999))
    .map(([to, id]) => shown('chown', [id, to], (root) => lchownSync(`${root}/${to}`, id, id))),
  fc
    .tuple(path, fc.nat(2 ** 31))
    .map(([to, at]) => shown('touch', [at, to], (root) => lutimesSync(`${root}/${to}`, at, at))),
  fc
    .tuple(path, fc.nat(99999))
    .map(([to, size]) => shown('truncate', [size, to], (root) => truncateSync(`${root}/${to}`, size))),
  path.map((to) =>
    shown('mkfifo', [to], (root) => execFileSync('mkfifo', [`${root}/${to}`], { stdio: 'ignore' })),
  ),
  fc
    .tuple(path, fc.constantFrom('user.x', 'trusted.y'))
    .map(([to, name]) =>
      shown(name, [to], (root) =>
        execFileSync('setfattr', ['-h', '-n', name, '-v', '1', `${root}/${to}`], { stdio: 'ignore' }),
      ),
    ),
);
const steps = fc.array(step, { maxLength: 14 });

function take(root: string, all: Step[]): void {
  for (const one of all) {
    try {
      one(root);
    } catch {
      // It made no sense here.
    }
  }
}

describe.skipIf(obstacle !== undefined)('saveRootfs and resetRootfs', () => {
  it('should make any overlay equal to any other of the same image, and roll it back', async () => {
    const property = fc.asyncProperty(steps, steps, fc.boolean(), async (mine, others, redirect) => {
      const lab = new Lab();
      try {
        const options = redirect ? 'redirect_dir=on,metacopy=on' : 'redirect_dir=off';
        const from = await lab.overlay('from', image, options);
        const to = await lab.overlay('to', image, options);
        take(from.rootfs, mine);
        take(to.rootfs, others);
        const [wanted, before] = [await rootfsListing(from.rootfs), await rootfsListing(to.rootfs)];
        const [saved, rollback] = [await lab.make('saved'), await lab.make('rollback')];
        await saveRootfs(from.rootfs, saved);
        await saveRootfs(to.rootfs, rollback);
        await resetRootfs(to.rootfs, saved);
        expect(await rootfsListing(to.rootfs)).toEqual(wanted);
        await resetRootfs(to.rootfs, rollback);
        expect(await rootfsListing(to.rootfs)).toEqual(before);
      } finally {
        lab.close();
      }
    });
    await fc.assert(property, { numRuns: Number(process.env.TARDIS_PROPERTY_RUNS ?? 25) });
  });
});
