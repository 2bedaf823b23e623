import { readFileSync } from 'node:fs';
import { arch, release } from 'node:os';
import { execa } from 'execa';
import type { Host } from './host.ts';
import { readKernelFeatures } from './kernel-features.ts';

/** What a dumped job may depend on of the host it ran on. */
export interface HostFacts {
  readonly arch: string;
  readonly kernel: string;
  readonly cpuFlags: readonly string[];
  readonly criu: string;
  readonly runc: string;
  readonly kernelFeatures: readonly string[];
}

/** Reads this host's facts; a program that does not answer has version "unknown". */
export async function readHostFacts(host: Host): Promise<HostFacts> {
  const [criu, runc] = await Promise.all([
    versionOf(host, 'criu', /^(?:Version:)?\s*(\d+(?:\.\d+)+)/m),
    versionOf(host, host.realRunc, /version (\d+(?:\.\d+)+)/),
  ]);
  return {
    arch: arch(),
    kernel: release(),
    cpuFlags: readCpuFlags(),
    criu,
    runc,
    kernelFeatures: readKernelFeatures(),
  };
}

async function versionOf(host: Host, program: string, form: RegExp): Promise<string> {
  const { stdout } = await execa(program, ['--version'], {
    stdin: 'ignore',
    env: host.env,
    extendEnv: false,
    reject: false,
  });
  return form.exec(typeof stdout === 'string' ? stdout : '')?.[1] ?? 'unknown';
}

/** The CPU's features by the kernel's names: `flags` on x86, `Features` on arm64. */
function readCpuFlags(): string[] {
  const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  return [...new Set(line?.split(/\s+/).filter(Boolean) ?? [])].sort();
}

/** Whether `found` is `wanted` or newer; an unknown version is taken at its word. */
export function isAtLeast(found: string, wanted: string): boolean {
  const numbers = (version: string): number[] => version.split('.').map(Number);
  const [a, b] = [numbers(found), numbers(wanted)];
  if ([...a, ...b].some(Number.isNaN)) return true;
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
