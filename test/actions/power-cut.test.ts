import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { imagesFor } from '../../src/actions/find-images.ts';
import { findCurrentImage } from '../../src/actions/image-store.ts';
import { validateImage } from '../../src/actions/validate-image.ts';
import { hostWith } from '../support/action-host.ts';
import { target } from '../support/action-image.ts';
import { useScratch } from '../support/action-scratch.ts';
import { fixturesDir } from '../support/paths.ts';
import { Disk, recordSteps, type Step } from '../support/power-cut.ts';

describe('a power cut at any step of three checkpoints', () => {
  const scratch = useScratch();
  let root: string;
  let steps: Step[];
  let disk: Disk;

  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'tardis-cut-'));
    steps = await recordSteps(root, process.execPath, [join(fixturesDir, 'committer.ts'), root, '3']);
    rmSync(root, { recursive: true });
    disk = new Disk(root, steps);
  });

  /** How many commits have returned by then. */
  const committedBy = (after: number): number =>
    steps.slice(0, after).filter((step) => step.do === 'symlink' && step.path.includes('/committed.')).length;

  it('should have been seen as it was', () => {
    const place = join(scratch.path, 'all');
    mkdirSync(place);
    disk.leave(place, disk.length, () => 0);
    expect(readdirSync(join(place, target.key)).sort()).toEqual(['2', '3', 'current', 'ledger']);
    expect(committedBy(disk.length)).toBe(3);
  });

  it.each([
    ['keeps every name', () => () => 0],
    ['loses every name that was not synced', () => () => 1],
    ['loses half of them', () => () => 0.5],
    [
      'loses those of one directory',
      (after: number) => (n: number) => (n === after % disk.directories ? 1 : 0),
    ],
    [
      'keeps those of one directory',
      (after: number) => (n: number) => (n === after % disk.directories ? 0 : 1),
    ],
  ] as const)(
    'should leave every committed image whole, where it %s',
    async (_, losing) => {
      for (let after = 0; after <= disk.length; after++) {
        const imageRoot = join(scratch.path, `cut-${after}`);
        mkdirSync(imageRoot);
        disk.leave(imageRoot, after, losing(after));
        const job = { imageRoot, key: target.key };
        const { images } = imagesFor(hostWith(), job, 'preempted');
        for (const { directory } of images) await validateImage(directory, target);
        const current = findCurrentImage(job);
        if (current) await validateImage(current.directory, target);
        expect(images[0]?.generation ?? 0, `after step ${after}`).toBeGreaterThanOrEqual(committedBy(after));
        rmSync(imageRoot, { recursive: true });
      }
    },
    180_000,
  );
});
