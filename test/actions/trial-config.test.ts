import { describe, expect, it } from 'vitest';
import { bindMountsOf, trialConfigOf } from '../../src/actions/trial-config.ts';
import { containerdSpec } from '../support/action-specs.ts';

const wish = { cgroupsPath: '/tardis-trial-1', standInFor: (source: string) => `/trial${source}` };
const rewritten = (text: string) => JSON.parse(trialConfigOf(text, wish));

describe('trialConfigOf', () => {
  it('keeps what runs, and numbers that JavaScript cannot hold, as they are written', () => {
    const text = trialConfigOf(containerdSpec(), wish);
    const { process: given, annotations } = JSON.parse(containerdSpec());
    expect(JSON.parse(text)).toMatchObject({ ociVersion: '1.2.0', process: given, annotations });
    expect(text).toContain('"hard":18446744073709551615');
    expect(text).toContain('"limit":9223372036854775807');
  });

  it('gives the copy a root file system and a cgroup of its own', () => {
    const text = containerdSpec().replace(
      '{"path": "rootfs"}',
      '{"path": "/elsewhere/rootfs", "readonly": true}',
    );
    expect(rewritten(text).root).toEqual({ path: 'rootfs', readonly: true });
    expect(rewritten(text).linux.cgroupsPath).toBe('/tardis-trial-1');
  });

  it('limits devices and memory, and leaves out limits that only slow a restore down', () => {
    const resources = rewritten(containerdSpec()).linux.resources;
    expect(Object.keys(resources).sort()).toEqual(['devices', 'memory']);
    expect(rewritten('{"root":{"path":"rootfs"},"process":{}}').linux.resources).toEqual({});
  });

  it('shows stand-ins for bind mounts, however they are written, and no others', () => {
    const extra = '{"destination": "/b", "source": "/host/b", "options": ["bind"]}, {"destination": "/proc"';
    const text = containerdSpec().replace('{"destination": "/proc"', extra);
    expect(bindMountsOf(text).map(({ source }) => source)).toEqual([
      '/host/b',
      '/var/lib/kubelet/pods/x/etc-hosts',
      '/run/containerd/shm',
    ]);
    expect(rewritten(text).mounts.map(({ source }: { source: string }) => source)).toEqual([
      '/trial/host/b',
      'proc',
      '/trial/var/lib/kubelet/pods/x/etc-hosts',
      '/trial/run/containerd/shm',
    ]);
  });

  it('joins no namespace of the job, its pod or its host', () => {
    expect(rewritten(containerdSpec()).linux.namespaces).toEqual([
      { type: 'pid' },
      { type: 'ipc' },
      { type: 'uts' },
      { type: 'mount' },
      { type: 'network', path: '/proc/self/ns/net' },
    ]);
    const shared = containerdSpec().replace('{"type": "pid"}', '{"type": "pid", "path": "/proc/7/ns/pid"}');
    expect(rewritten(shared).linux.namespaces[0]).toEqual({ type: 'pid' });
    const own = containerdSpec().replace(', "path": "/proc/7/ns/net"', '');
    expect(rewritten(own).linux.namespaces.at(-1)).toEqual({ type: 'network' });
  });

  it("runs none of the engine's hooks, and makes no group of resctrl", () => {
    const hooks = '"hooks": {"createRuntime": [{"path": "/usr/bin/hook"}]}';
    const text = containerdSpec()
      .replace('"hooks": null', hooks)
      .replace('"sysctl": null', '"intelRdt": {"closID": "gold"}');
    expect(rewritten(text)).not.toHaveProperty('hooks');
    expect(rewritten(text).linux).not.toHaveProperty('intelRdt');
  });
});
