import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * What shows by a file that the kernel can do something that CRIU needs, or that a dumped job may have used. What CRIU
 * itself finds missing in time (a protocol, a huge page size) is not here: a job without it must not be refused.
 */
const signs: Readonly<Record<string, string>> = {
  // CONFIG_CHECKPOINT_RESTORE (proc(5)).
  'checkpoint-restore': 'proc/sys/kernel/ns_last_pid',
  'time-namespace-offsets': 'proc/self/timens_offsets',
  'map-files': 'proc/self/map_files',
  userfaultfd: 'proc/sys/vm/unprivileged_userfaultfd',
  'transparent-hugepages': 'sys/kernel/mm/transparent_hugepage',
  'sysv-ipc': 'proc/sysvipc',
  'posix-message-queues': 'proc/sys/fs/mqueue',
};

/**
 * What this kernel offers of what a restored job may need, as sorted words: `namespace:<name>` (namespaces(7)),
 * `seccomp:<action>` (seccomp(2), actions_avail), and the names in {@link signs}.
 *
 * @param root where `proc` and `sys` are.
 */
export function readKernelFeatures(root = '/'): string[] {
  const namespaces = attempt(() => readdirSync(join(root, 'proc/self/ns')))
    .filter((name) => !name.endsWith('_for_children'))
    .map((name) => `namespace:${name}`);
  const actions = attempt(() =>
    readFileSync(join(root, 'proc/sys/kernel/seccomp/actions_avail'), 'utf8').split(/\s+/).filter(Boolean),
  ).map((name) => `seccomp:${name}`);
  const shown = Object.keys(signs).filter((name) => existsSync(join(root, signs[name] as string)));
  return [...namespaces, ...actions, ...shown].sort();
}

/** A kernel without the file has none of what it lists. */
function attempt(list: () => string[]): string[] {
  try {
    return list();
  } catch {
    return [];
  }
}
