import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { writeCriuOptions } from '../../src/actions/criu-options.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const bundle = (): string => {
  mkdirSync(scratch.at('bundle'), { recursive: true });
  return scratch.at('bundle');
};
const optionsIn = (home: string): string[] =>
  readFileSync(join(home, '.criu', 'default.conf'), 'utf8').split('\n');

describe('writeCriuOptions', () => {
  it.each([
    ['dump', false, ['ghost-limit 3G', 'link-remap', 'tcp-close', 'skip-in-flight']],
    ['dump', true, ['ghost-limit 3G', 'link-remap']],
    ['restore', false, ['leave-stopped', 'tcp-close']],
    ['restore', true, ['leave-stopped']],
  ] as const)(
    'should write the options of a %s (connections kept: %s), one a line',
    (purpose, keeps, options) => {
      expect(optionsIn(writeCriuOptions(bundle(), purpose, keeps))).toEqual([...options, '']);
    },
  );

  it('should give each purpose a home of its own, in the bundle', () => {
    const dump = writeCriuOptions(bundle(), 'dump', false);
    const restore = writeCriuOptions(bundle(), 'restore', false);
    expect([dump, restore]).toEqual([
      join(bundle(), 'tardis-criu/dump'),
      join(bundle(), 'tardis-criu/restore'),
    ]);
    expect(optionsIn(dump)).toContain('link-remap');
    expect(readdirSync(bundle())).toEqual(['tardis-criu']);
  });

  it('should leave nothing of the time before', () => {
    writeCriuOptions(bundle(), 'dump', false);
    expect(optionsIn(writeCriuOptions(bundle(), 'dump', true))).not.toContain('tcp-close');
  });

  it('should write for the owner only', () => {
    const home = writeCriuOptions(bundle(), 'dump', false);
    expect(statSync(join(home, '.criu')).mode & 0o777).toBe(0o700);
    expect(statSync(join(home, '.criu', 'default.conf')).mode & 0o777).toBe(0o600);
  });
});
