import { describe, expect, it } from 'vitest';
import { cgroup2Hierarchy } from '../../src/actions/cgroup2-options.ts';

const v1 = '36 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer';
const other = '27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard';
const mounted = (options: string) =>
  `41 31 0:38 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 ${options}`;

describe('cgroup2Hierarchy', () => {
  it.each([
    ['rw', []],
    ['rw,nsdelegate', ['nsdelegate']],
    ['rw,nsdelegate,memory_recursiveprot', ['nsdelegate', 'memory_recursiveprot']],
    ['ro,favordynmods', ['favordynmods']],
  ])("should find the hierarchy's own options: %s", (options, expected) => {
    const mountinfo = `${[other, v1, mounted(options)].join('\n')}\n`;
    expect(cgroup2Hierarchy(mountinfo)).toEqual({ mountPoint: '/sys/fs/cgroup', options: expected });
  });

  it('should find none on a host with cgroup v1 alone', () => {
    expect(cgroup2Hierarchy(`${other}\n${v1}\n`)).toBeUndefined();
  });
});
