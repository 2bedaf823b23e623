import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { parseMountinfo } from '../../src/actions/rootfs-location.ts';
import { trialOf } from '../../src/actions/scratch.ts';
import { dropTrial, findTrialProgram, trialCgroupOf } from '../../src/actions/trial-place.ts';
import { hostWith } from '../support/action-host.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();
const container = () => ({
  ...{ id: 'job', root: scratch.at('runc'), bundle: scratch.at('bundle') },
  ...{ key: 'job', imageRoot: scratch.at('images') },
});
const host = () => hostWith({ config: { ...hostWith().config, scratchDir: scratch.at('scratch') } });

describe('trialCgroupOf', () => {
  it('is one for each container of each engine, at the top of a hierarchy', () => {
    const names = [
      { root: '/run/a', id: 'job' },
      { root: '/run/b', id: 'job' },
      { root: '/run/a', id: 'job2' },
    ].map(trialCgroupOf);
    expect(new Set(names).size).toBe(3);
    for (const name of names) expect(name).toMatch(/^\/tardis-trial-[0-9a-f]{16}$/);
  });
});

describe('findTrialProgram', () => {
  it('is a part of an installed Tardis', async () => {
    writeFileSync(scratch.at('home/dist/trial-restore.cjs'), '');
    expect(findTrialProgram({ home: scratch.at('home') })).toBe(scratch.at('home/dist/trial-restore.cjs'));
    expect((await problemOf(() => findTrialProgram({ home: undefined }))).code).toBe('unproven');
  });
});

describe('dropTrial', () => {
  it('removes the files of a trial, and nothing else that the container has on the disk', async () => {
    const trial = trialOf(host(), container());
    for (const path of [join(trial, 'rootfs'), join(trial, '../checkpoint')])
      mkdirSync(path, { recursive: true });
    writeFileSync(join(trial, 'rootfs/file'), '');
    await dropTrial(host(), container());
    expect(existsSync(trial)).toBe(false);
    expect(existsSync(join(trial, '../checkpoint'))).toBe(true);
    await dropTrial(host(), container());
  });

  it.skipIf(!isRoot)('removes its cgroup, and those that the job had made in its own', async () => {
    const top = parseMountinfo(readFileSync('/proc/self/mountinfo', 'latin1')).find(
      ({ type, root }) => /^cgroup2?$/.test(type) && root === '/',
    )?.mountPoint as string;
    const cgroup = join(top, trialCgroupOf(container()));
    mkdirSync(join(cgroup, 'a/b'), { recursive: true });
    onTestFinished(() => {
      for (const path of ['a/b', 'a', '']) if (existsSync(join(cgroup, path))) rmdirSync(join(cgroup, path));
    });
    await dropTrial(host(), container());
    expect(existsSync(cgroup)).toBe(false);
  });
});
