import { chmodSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { makePrivate } from '../../src/actions/make-private.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const modeOf = (name: string) => (statSync(scratch.at(name)).mode & 0o7777).toString(8);

it('should take everything from everybody but the owner, and follow no symlink out', () => {
  writeFileSync(scratch.at('outside'), '');
  chmodSync(scratch.at('outside'), 0o644);
  for (const name of ['image/stats-dump', 'image/checkpoint/core-1.img']) writeFileSync(scratch.at(name), '');
  mkdirSync(scratch.at('image/empty'));
  for (const name of [
    'image',
    'image/checkpoint',
    'image/empty',
    'image/stats-dump',
    'image/checkpoint/core-1.img',
  ])
    chmodSync(scratch.at(name), 0o6775);
  symlinkSync('../outside', scratch.at('image/link'));
  makePrivate(scratch.at('image'));
  for (const name of ['image', 'image/checkpoint', 'image/empty']) expect(modeOf(name), name).toBe('700');
  for (const name of ['image/stats-dump', 'image/checkpoint/core-1.img'])
    expect(modeOf(name), name).toBe('600');
  expect(modeOf('outside')).toBe('644');
});
