import { describe, expect, it } from 'vitest';
import { isUnified, unifiedCgroupOf } from '../../src/actions/unified-cgroup.ts';

const own = '4:memory:/else\n0::/user.slice/session-1.scope\n';

describe('unifiedCgroupOf', () => {
  it.each([
    ['containerd’s path', '/k8s.io/abc', '/k8s.io/abc'],
    ['a path with detours', '/a/../b//abc/', '/b/abc/'],
    ['a relative path, from above the caller’s own cgroup', 'a/abc', '/user.slice/a/abc'],
    ['a relative path that does not lead out', '../../abc', '/user.slice/abc'],
    ['no path: the id, from above the caller’s own cgroup', undefined, '/user.slice/abc'],
  ])('should tell, under cgroupfs, %s', (_, cgroupsPath, expected) => {
    expect(unifiedCgroupOf({ id: 'abc', cgroupsPath, systemd: false }, own)).toBe(expected);
  });

  it.each([
    ['Docker’s scope', 'system.slice:docker:abc', '/system.slice/docker-abc.scope'],
    ['no slice', ':docker:abc', '/system.slice/docker-abc.scope'],
    ['no prefix', 'system.slice::abc', '/system.slice/abc.scope'],
    [
      'a slice in slices',
      'ecs-tasks-1.slice:docker:abc',
      '/ecs.slice/ecs-tasks.slice/ecs-tasks-1.slice/docker-abc.scope',
    ],
    ['the topmost slice', '-.slice:docker:abc', '/docker-abc.scope'],
    ['a slice for the container', 'system.slice:docker:abc.slice', '/system.slice/abc.slice'],
    ['no path', undefined, '/system.slice/runc-abc.scope'],
  ])('should tell, under systemd, %s', (_, cgroupsPath, expected) => {
    expect(unifiedCgroupOf({ id: 'abc', cgroupsPath, systemd: true }, own)).toBe(expected);
  });
});

describe('isUnified', () => {
  it('should take no other file system for cgroup v2, nor a missing one', () => {
    expect([isUnified('/proc'), isUnified('/nowhere')]).toEqual([false, false]);
  });
});
