import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readKernelFeatures } from '../../src/actions/kernel-features.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();

describe('readKernelFeatures', () => {
  it("should name this kernel's namespaces and seccomp actions, sorted, each once", () => {
    const features = readKernelFeatures();
    expect(features).toEqual([...new Set(features)].sort());
    expect(features).toEqual(expect.arrayContaining(['namespace:pid', 'namespace:mnt', 'seccomp:errno']));
    for (const name of readdirSync('/proc/self/ns').filter((entry) => !entry.includes('_for_')))
      expect(features).toContain(`namespace:${name}`);
  });

  it('should name what shows by a file, where the file is', () => {
    for (const name of ['net', 'pid', 'pid_for_children', 'time'])
      writeFileSync(scratch.at('proc/self/ns', name), '');
    writeFileSync(scratch.at('proc/sys/kernel/seccomp/actions_avail'), 'kill_thread log\n');
    writeFileSync(scratch.at('proc/sys/vm/unprivileged_userfaultfd'), '0');
    mkdirSync(scratch.at('sys/kernel/mm/transparent_hugepage'));
    expect(readKernelFeatures(scratch.path)).toEqual([
      ...['namespace:net', 'namespace:pid', 'namespace:time'],
      ...['seccomp:kill_thread', 'seccomp:log', 'transparent-hugepages', 'userfaultfd'],
    ]);
  });

  it('should name nothing for a kernel that shows nothing', () => {
    expect(readKernelFeatures(scratch.path)).toEqual([]);
  });
});
