import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cached } from './cache.ts';
import { fixturesDir, whichOrThrow } from './paths.ts';
import { run } from './run.ts';

const capSysResource = 24n;

/**
 * The directories to put on PATH so that `criu` can dump other users' processes on a machine whose root lacks
 * CAP_SYS_RESOURCE (some sandboxes): none where root has it. See test/fixtures/prlimit-preload.c.
 */
export async function criuForSandbox(): Promise<string[]> {
  if (rootHas(capSysResource)) return [];
  const source = join(fixturesDir, 'prlimit-preload.c');
  const criu = whichOrThrow('criu');
  const recipe = createHash('sha256').update(readFileSync(source)).update(criu).digest('hex').slice(0, 12);
  const place = await cached(`criu-for-sandbox-${recipe}`, async (dir) => {
    await run('gcc', [
      '-shared',
      '-fPIC',
      '-O2',
      '-Wall',
      '-Werror',
      '-o',
      join(dir, 'prlimit.so'),
      source,
      '-ldl',
    ]);
    // It finds the library beside itself, for the directory is renamed once it is complete.
    const script = `#!/bin/sh\nLD_PRELOAD=\${0%/*}/prlimit.so exec ${criu} "$@"\n`;
    writeFileSync(join(dir, 'criu'), script, { mode: 0o755 });
  });
  return [place];
}

function rootHas(capability: bigint): boolean {
  const bounding = /^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${bounding}`) >> capability) & 1n) === 1n;
}
