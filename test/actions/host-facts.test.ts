import { readFileSync, writeFileSync } from 'node:fs';
import { arch, release } from 'node:os';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isAtLeast, readHostFacts } from '../../src/actions/host-facts.ts';
import { hostWith } from '../support/action-host.ts';
import { useScratch } from '../support/action-scratch.ts';

describe('isAtLeast', () => {
  it.each([
    ['4.1', '4.1', true],
    ['4.1.1', '4.1', true],
    ['4.1', '4.1.0', true],
    ['4.1.0', '4.1', true],
    ['4.10', '4.9', true],
    ['5.0', '4.99.99', true],
    ['4.1', '4.1.1', false],
    ['4.9', '4.10', false],
    ['3.17.1', '4.0', false],
    ['unknown', '4.1', true],
    ['4.1', 'unknown', true],
    ['unknown', 'unknown', true],
    ['4.1-rc1', '4.1', true],
  ])('should say of %s and %s that it is %s', (found, wanted, answer) => {
    expect(isAtLeast(found, wanted)).toBe(answer);
  });

  const version = fc.array(fc.nat(3), { minLength: 1, maxLength: 4 });
  const isSame = (a: number[], b: number[]): boolean =>
    Array.from({ length: 4 }, (_, i) => (a[i] ?? 0) === (b[i] ?? 0)).every(Boolean);

  it('should be so both ways for one version alone, however many zeros it ends with', () => {
    fc.assert(
      fc.property(version, version, (a, b) => {
        const [one, other] = [a.join('.'), b.join('.')];
        expect(isAtLeast(one, other) || isAtLeast(other, one)).toBe(true);
        expect(isAtLeast(one, other) && isAtLeast(other, one)).toBe(isSame(a, b));
      }),
      { numRuns: 1000 },
    );
  });

  it('should carry over from one version to the next', () => {
    fc.assert(
      fc.property(version, version, version, (...three) => {
        const [a = '', b = '', c = ''] = three.map((numbers) => numbers.join('.'));
        fc.pre(isAtLeast(a, b) && isAtLeast(b, c));
        expect(isAtLeast(a, c)).toBe(true);
      }),
    );
  });
});

describe('readHostFacts', () => {
  const scratch = useScratch();
  const program = (name: string, script: string): string => {
    writeFileSync(scratch.at('bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return scratch.at('bin', name);
  };
  const facts = (realRunc: string) => readHostFacts(hostWith({ realRunc, env: { PATH: scratch.at('bin') } }));

  it('should ask the runc that does the work, and the CRIU on the PATH of the caller', async () => {
    program('criu', 'echo "Version: 4.1.1"; echo "GitID: v4.1.1-2-g7.8"');
    const runc = program('runc', 'echo "runc version 1.2.6"; echo "spec: 1.2.0"; echo "go: go1.22.1"');
    expect(await facts(runc)).toMatchObject({
      arch: arch(),
      kernel: release(),
      criu: '4.1.1',
      runc: '1.2.6',
    });
  });

  it.each([
    ['print something else', 'echo "version four"', 'echo hello'],
    ['print their version among the errors', 'echo "Version: 4.1" >&2', 'echo "runc version 1.2" >&2'],
    ['print nothing and fail', 'exit 1', 'exit 1'],
    ['die', 'kill -9 $$', 'kill -9 $$'],
  ])('should not know the versions of programs that %s', async (_, criu, runc) => {
    program('criu', criu);
    expect(await facts(program('runc', runc))).toMatchObject({ criu: 'unknown', runc: 'unknown' });
  });

  it('should not know the versions of programs that are missing', async () => {
    expect(await facts(scratch.at('bin', 'runc'))).toMatchObject({ criu: 'unknown', runc: 'unknown' });
  });

  it("should name the CPU's features once each, in a fixed order", async () => {
    const { cpuFlags } = await facts(scratch.at('bin', 'runc'));
    expect(cpuFlags).toEqual([...new Set(cpuFlags)].sort());
    const words = new Set(readFileSync('/proc/cpuinfo', 'utf8').split(/\s+/));
    expect(cpuFlags.length).toBeGreaterThan(3);
    for (const flag of cpuFlags) expect(words).toContain(flag);
  });
});
