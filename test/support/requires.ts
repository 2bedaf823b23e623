import { spawnSync } from 'node:child_process';
import { which } from './paths.ts';

export type Requirements = { skip: boolean; missing: string[] };

/**
 * What an end-to-end test needs of its host. An unfit host skips, and says why; with CI=true it fails instead,
 * because there a skipped suite would look like a passed one.
 *
 * @example
 * describe.skipIf(requireRealStack({ docker: true }).skip)('checkpoint', () => { ... });
 */
export function requireRealStack(options: { docker?: boolean } = {}): Requirements {
  const missing = missingHere(options.docker ?? false);
  if (missing.length === 0) return { skip: false, missing };
  const reason = `this host cannot run the end-to-end tests: ${missing.join('; ')} (scripts/setup-host.sh --tests)`;
  if (process.env.CI === 'true') throw new Error(reason);
  console.warn(`skipped: ${reason}`);
  return { skip: true, missing };
}

let remembered: string[] | undefined;

function missingHere(docker: boolean): string[] {
  remembered ??= missingForContainerd();
  const forDocker = docker ? missingPrograms(['dockerd', 'docker']) : [];
  return [...remembered, ...forDocker];
}

function missingForContainerd(): string[] {
  if (process.platform !== 'linux') return [`needs Linux (found ${process.platform})`];
  const missing = missingPrograms(['runc', 'containerd', 'ctr', 'criu', 'busybox', 'flock', 'script', 'tar']);
  const uid = process.getuid?.();
  if (uid !== 0) missing.unshift(`needs root (found uid ${uid})`);
  if (missing.length === 0) {
    const check = spawnSync('criu', ['check'], { encoding: 'utf8' });
    if (check.status !== 0) missing.push(`needs a CRIU whose 'criu check' succeeds (${check.stderr.trim()})`);
  }
  return missing;
}

function missingPrograms(programs: string[]): string[] {
  return programs.filter((program) => which(program) === undefined).map((program) => `needs ${program}`);
}
