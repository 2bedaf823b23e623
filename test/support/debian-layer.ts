import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './run.ts';

const packages = [
  'busybox',
  'nginx-light',
  'postgresql',
  'procps',
  'python3',
  'python3-numpy',
  'redis-server',
  'sqlite3',
];

// Papers, translations, and LLVM, which postgres uses only if it is there. More cannot go before the packages' own
// set-up scripts have run: `slimming` does the rest.
const unwanted = [
  '/usr/share/doc/*',
  '/usr/share/info/*',
  '/usr/share/man/*',
  '/usr/share/locale/*',
  '/usr/lib/*/libLLVM*',
  '/usr/lib/*/libz3*',
  '/usr/lib/postgresql/*/lib/bitcode/*',
  '/usr/lib/postgresql/*/lib/llvmjit*',
  '/usr/lib/*/perl/*/CORE/*.h',
];

// $1 is the new root. Tests make their own database cluster.
const withoutCluster =
  'mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"';
const slimming = `cd "$1"
rm -rf var/lib/apt/lists/* var/cache/* var/log/*.log var/log/apt usr/share/i18n
find usr/lib/python3 usr/lib/python3.* -type d \\( -name tests -o -name __pycache__ \\) -prune -exec rm -rf {} +`;

/** Release and a word that changes whenever the root file system would. */
export function debianRecipe(): { release: string; digest: string } {
  const release = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  if (release === undefined)
    throw new Error('found no VERSION_CODENAME in /etc/os-release; needs a Debian host');
  const recipe = JSON.stringify([release, packages, unwanted, withoutCluster, slimming]);
  return { release, digest: createHash('sha256').update(recipe).digest('hex').slice(0, 12) };
}

/** Writes `<dir>/layer.tar`: a small Debian of the host's own release, from the host's own package sources. */
export async function buildDebianLayer(dir: string): Promise<void> {
  const flags = [
    ...['--variant=minbase', `--include=${packages.join(',')}`],
    ...unwanted.map((path) => `--dpkgopt=path-exclude=${path}`),
    ...[`--essential-hook=${withoutCluster}`, `--customize-hook=${slimming}`],
  ];
  await run('mmdebstrap', [...flags, debianRecipe().release, join(dir, 'layer.tar')], { timeoutMs: 900_000 });
}
