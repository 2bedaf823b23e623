import { lstatSync, mkdirSync, readdirSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  bundleFromIndex,
  enterIndex,
  indexEntryOf,
  indexedContainers,
  leaveIndex,
} from '../../src/actions/container-index.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const runDir = (): string => scratch.at('run');

const container = (given: Partial<{ id: string; root: string; bundle: string }> = {}) => ({
  id: 'job',
  root: '/run/containerd/runc/default',
  bundle: '/bundles/job',
  key: 'k',
  imageRoot: '/images',
  ...given,
});
const bundleOf = ({ root, id } = container()) => bundleFromIndex(runDir(), root, id);

describe('the index', () => {
  it('should be a symlink to the bundle, at the place where the launcher looks', () => {
    enterIndex(runDir(), container());
    const place = `${runDir()}/containers/run/containerd/runc/default/job`;
    expect(indexEntryOf(runDir(), '/run/containerd/runc/default', 'job')).toBe(place);
    expect(readlinkSync(place)).toBe('/bundles/job');
    expect(bundleOf()).toBe('/bundles/job');
  });

  it("should be for root's eyes only", () => {
    enterIndex(runDir(), container());
    for (const name of ['run', 'run/containers', 'run/containers/run/containerd/runc/default']) {
      expect(lstatSync(scratch.at(name)).mode & 0o777).toBe(0o700);
    }
  });

  it('should tell containers of the same id under different roots', () => {
    enterIndex(runDir(), container());
    enterIndex(runDir(), container({ root: '/run/runc', bundle: '/bundles/other' }));
    expect(bundleOf()).toBe('/bundles/job');
    expect(bundleOf(container({ root: '/run/runc' }))).toBe('/bundles/other');
    const roots = indexedContainers(runDir()).map(({ id, root }) => `${root} ${id}`);
    expect(roots.sort()).toEqual(['/run/containerd/runc/default job', '/run/runc job']);
    leaveIndex(runDir(), container());
    expect(bundleOf()).toBeUndefined();
    expect(bundleOf(container({ root: '/run/runc' }))).toBe('/bundles/other');
  });

  it('names no container where there is no index', () => {
    expect(indexedContainers(runDir())).toEqual([]);
  });

  it('should name the newest container of an id, and leave nothing beside it', () => {
    enterIndex(runDir(), container());
    enterIndex(runDir(), container({ bundle: '/bundles/again' }));
    expect(bundleOf()).toBe('/bundles/again');
    expect(readdirSync(runDir())).toEqual(['containers']);
    expect(readdirSync(`${runDir()}/containers/run/containerd/runc/default`)).toEqual(['job']);
  });

  it('should be entered over the draft of a wrapper that died with the same pid', () => {
    mkdirSync(runDir());
    symlinkSync('/bundles/dead', `${runDir()}/draft.${process.pid}`);
    enterIndex(runDir(), container());
    expect(bundleOf()).toBe('/bundles/job');
    expect(readdirSync(runDir())).toEqual(['containers']);
  });

  it('should be left, twice too, also where there never was one', () => {
    leaveIndex(runDir(), container());
    enterIndex(runDir(), container());
    leaveIndex(runDir(), container());
    leaveIndex(runDir(), container());
    expect(bundleOf()).toBeUndefined();
    expect(readdirSync(`${runDir()}/containers/run/containerd/runc/default`)).toEqual([]);
  });

  it('should remove the entry alone, not the bundle', () => {
    const bundle = scratch.at('bundle');
    mkdirSync(bundle);
    writeFileSync(`${bundle}/config.json`, '{}');
    enterIndex(runDir(), container({ bundle }));
    leaveIndex(runDir(), container({ bundle }));
    expect(readdirSync(bundle)).toEqual(['config.json']);
  });

  it('should name a bundle that is gone, and no bundle for what is no entry', () => {
    const bundle = scratch.at('bundle');
    mkdirSync(bundle);
    enterIndex(runDir(), container({ bundle }));
    rmSync(bundle, { recursive: true });
    expect(bundleOf()).toBe(bundle);
    expect(bundleOf(container({ id: 'other' }))).toBeUndefined();
    writeFileSync(`${runDir()}/containers/run/containerd/runc/default/file`, '');
    expect(bundleOf(container({ id: 'file' }))).toBeUndefined();
  });
});
