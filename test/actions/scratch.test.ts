import { chownSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dropScratch, freshScratch, prepareScratch, scratchDumpOf } from '../../src/actions/scratch.ts';
import { hostWith } from '../support/action-host.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { container } from '../support/machine-samples.ts';

const place = useScratch();
function hostHere() {
  const host = hostWith();
  return { ...host, config: { ...host.config, scratchDir: place.at('scratch') } };
}
const write = (path: string): void => {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, 'memory');
};

describe('a scratch directory', () => {
  it('should be empty each time, and for its owner alone', () => {
    const host = hostHere();
    write(join(freshScratch(host, container), 'left'));
    const directory = freshScratch(host, container);
    expect(readdirSync(directory)).toEqual([]);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(scratchDumpOf(host, container).startsWith(`${directory}/`)).toBe(true);
  });

  it('should be the only one that is dropped', () => {
    const host = hostHere();
    const other = freshScratch(host, { ...container, id: 'other' });
    const directory = freshScratch(host, container);
    dropScratch(host, container);
    expect([existsSync(directory), existsSync(other)]).toEqual([false, true]);
    dropScratch(host, container);
  });

  it('should make an end of what is left from before the host went down, and of nothing else', () => {
    const host = hostHere();
    const boot = '00000000-1111-2222-3333-444444444444';
    write(place.at(`scratch/tardis-${boot}/run/runc/job/pages-1.img`));
    const others = [`${boot}/file`, 'tardis-images/file', 'lost+found/file'].map((path) =>
      place.at(`scratch/${path}`),
    );
    others.forEach(write);
    const sibling = freshScratch(host, { ...container, id: 'sibling' });
    prepareScratch(host, container, 0);
    expect(existsSync(place.at(`scratch/tardis-${boot}`))).toBe(false);
    for (const path of [...others, sibling]) expect(existsSync(path), path).toBe(true);
  });

  it.runIf(isRoot)('should be refused where others can exchange it', async () => {
    const host = hostHere();
    const directory = join(freshScratch(host, container), '..');
    chownSync(directory, 1000, 1000);
    const { code, message } = await problemOf(() => prepareScratch(host, container, 0));
    expect([code, message.includes(directory)]).toEqual(['image-owner', true]);
  });

  it('should be refused where there is no room for what comes', async () => {
    const { code, message } = await problemOf(() =>
      prepareScratch(hostHere(), container, Number.MAX_SAFE_INTEGER),
    );
    expect(code).toBe('scratch-full');
    expect(message).toContain('scratchDir');
  });
});
