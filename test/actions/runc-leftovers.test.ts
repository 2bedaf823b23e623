import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { describe, expect, it } from 'vitest';
import { unmountLeftovers } from '../../src/actions/runc-leftovers.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();

describe.skipIf(process.getuid?.() !== 0)('unmountLeftovers', () => {
  it("should take away what is mounted below one container's record, and nobody else's", async () => {
    const rootfs = scratch.at('rootfs');
    mkdirSync(rootfs, { recursive: true });
    writeFileSync(join(rootfs, 'file'), '');
    const mounted = (id: string) => scratch.at('runc', id, 'criu-root');
    for (const id of ['job', 'job-2']) {
      mkdirSync(mounted(id), { recursive: true });
      await execa('mount', ['--bind', rootfs, mounted(id)]);
    }
    try {
      await unmountLeftovers({ root: scratch.at('runc'), id: 'job' });
      expect(existsSync(join(mounted('job'), 'file'))).toBe(false);
      expect(existsSync(join(mounted('job-2'), 'file'))).toBe(true);
      expect(existsSync(join(rootfs, 'file'))).toBe(true);
    } finally {
      await unmountLeftovers({ root: scratch.at('runc'), id: 'job-2' });
    }
  });
});
