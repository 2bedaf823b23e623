import { describe, expect, it } from 'vitest';
import { readDefinition, stricterThan } from '../../src/actions/definition.ts';
import { problemOf } from '../support/action-thrown.ts';

type Changes = { root?: object; process?: object; linux?: object; mounts?: object[] };

const mounts = [
  { destination: '/proc', type: 'proc' },
  { destination: '/data', type: 'bind', source: '/srv', options: ['rbind', 'nosuid'] },
];
const seccomp = {
  defaultAction: 'SCMP_ACT_ERRNO',
  syscalls: [
    { names: ['read', 'write', 'mount'], action: 'SCMP_ACT_ALLOW' },
    { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0 }] },
    { names: ['clone'], action: 'SCMP_ACT_ERRNO' },
  ],
};
const definition = (changes: Changes = {}) =>
  readDefinition(
    JSON.stringify({
      ociVersion: '1.0.2',
      root: { path: 'rootfs', readonly: false, ...changes.root },
      process: {
        args: ['job'],
        apparmorProfile: 'docker-default',
        selinuxLabel: 'system_u:system_r:container_t:s0:c7,c8',
        ...changes.process,
      },
      mounts: changes.mounts ?? mounts,
      linux: { maskedPaths: ['/proc/kcore'], readonlyPaths: ['/proc/sys'], seccomp, ...changes.linux },
    }),
  );

describe('stricterThan', () => {
  const found = (changes: Changes, old: Changes = {}) => stricterThan(definition(old), definition(changes));

  it.each<[what: string, changes: Changes, words: string]>([
    ['no new privileges', { process: { noNewPrivileges: true } }, 'process.noNewPrivileges is set'],
    [
      'another AppArmor profile',
      { process: { apparmorProfile: 'strict' } },
      'process.apparmorProfile is "strict", and was "docker-default"',
    ],
    [
      'another SELinux domain',
      { process: { selinuxLabel: 'system_u:system_r:strict_t:s0:c7,c8' } },
      'process.selinuxLabel is "system_u:system_r:strict_t", and was "system_u:system_r:container_t"',
    ],
    ['a read-only root', { root: { readonly: true } }, 'root.readonly is set'],
    [
      'a masked path more',
      { linux: { maskedPaths: ['/proc/kcore', '/x', '/proc/not-there'] } },
      'linux.maskedPaths has /x',
    ],
    [
      'a read-only path more',
      { linux: { readonlyPaths: ['/y', '/proc/sys'] } },
      'linux.readonlyPaths has /y',
    ],
    [
      'a volume that may not be written to',
      { mounts: [mounts[0] as object, { ...mounts[1], options: ['rbind', 'nosuid', 'ro'] }] },
      'mounts have the option ro at /data',
    ],
    [
      'a volume that may not be written to, nor what is mounted in it',
      { mounts: [mounts[0] as object, { ...mounts[1], options: ['rbind', 'rnosuid', 'rro'] }] },
      'mounts have the option ro at /data',
    ],
    [
      'a filter that lacks a call',
      { linux: { seccomp: { ...seccomp, syscalls: seccomp.syscalls.slice(1) } } },
      'linux.seccomp forbids mount, read, write',
    ],
  ])('names %s', (_, changes, words) => {
    expect(found(changes)).toEqual([words]);
  });

  it('names a filter where there was none', () => {
    expect(found({}, { linux: { seccomp: undefined } })).toEqual(['linux.seccomp allows only what it names']);
  });

  it('names a filter that forbids a call by its own rule', () => {
    const open = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [] };
    const some = { ...open, syscalls: [{ names: ['ptrace'], action: 'SCMP_ACT_KILL' }] };
    expect(found({ linux: { seccomp: some } }, { linux: { seccomp: open } })).toEqual([
      'linux.seccomp forbids ptrace',
    ]);
  });

  it.each<[what: string, changes: Changes]>([
    ['nothing at all', {}],
    [
      'the same SELinux domain with categories of its own',
      { process: { selinuxLabel: 'system_u:system_r:container_t:s0:c1,c2' } },
    ],
    ['no AppArmor', { process: { apparmorProfile: 'unconfined' } }],
    ['less masked', { linux: { maskedPaths: [] } }],
    ['no filter', { linux: { seccomp: undefined } }],
    [
      'a filter of a newer engine, which knows more calls',
      {
        linux: {
          seccomp: {
            ...seccomp,
            syscalls: [...seccomp.syscalls, { names: ['new'], action: 'SCMP_ACT_ALLOW' }],
          },
        },
      },
    ],
    ['nulls, as Go writes them', { linux: { maskedPaths: null, readonlyPaths: null, seccomp: null } }],
  ])('lets %s pass', (_, changes) => {
    expect(found(changes)).toEqual([]);
  });
});

describe('readDefinition', () => {
  it.each(['', '{}', '{"root":{},"process":{"rlimits":[{"type":"RLIMIT_CPU"}]}}'])(
    'refuses %j',
    async (text) => {
      expect((await problemOf(() => readDefinition(text))).code).toBe('container-config');
    },
  );
});
