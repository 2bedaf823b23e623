// Bundles the two programs for the host: one file each, so that a call opens one file and not four hundred. As CommonJS,
// in which what is imported lazily, Node's own modules included, is not even begun before it is needed.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';

await build({
  entryPoints: { 'tardis-runc': 'src/cli/tardis-runc.ts', tardis: 'src/cli/tardis.ts' },
  outdir: 'dist',
  outExtension: { '.js': '.cjs' },
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'cjs',
  legalComments: 'none',
  // unzipper asks for it only where it opens an archive in S3.
  external: ['@aws-sdk/client-s3'],
  plugins: [{ name: 'pino without workers', setup: leaveOutWorkers }],
  logLevel: 'warning',
});

/**
 * pino loads the parts for its own files and worker threads at once, needed or not. Ours is a file that it is handed
 * (src/actions/log.ts), and it is loaded in every call.
 */
function leaveOutWorkers(build) {
  build.onResolve(
    { filter: /^(sonic-boom|thread-stream|on-exit-leak-free|worker_threads)$/ },
    ({ path, importer }) =>
      /node_modules\/pino\/lib\//.test(importer) ? { path, namespace: 'left-out' } : undefined,
  );
  build.onLoad({ filter: /.*/, namespace: 'left-out' }, ({ path }) => ({
    contents:
      path === 'worker_threads'
        ? 'exports.isMainThread = true;'
        : `module.exports = function () { throw new Error(${JSON.stringify(`${path} is not in this bundle`)}); };`,
  }));
}

// V8's compiled form of the program, which the launcher has it load (docs/performance.md). It is made by the Node that
// is going to use it and holds what has run, so the program creates a container here, with a runc that does nothing.
const installation = join(import.meta.dirname, '..');
rmSync(join(installation, 'dist/compile-cache'), { recursive: true, force: true });
const place = mkdtempSync(join(tmpdir(), 'tardis-build-'));
try {
  const settings = {
    realRunc: '/bin/true',
    checkpointRoot: join(place, 'images'),
    runDir: join(place, 'run'),
  };
  writeFileSync(join(place, 'tardis.json'), JSON.stringify({ ...settings, logFile: join(place, 'log') }));
  const bundle = { root: { path: 'rootfs' }, process: { env: ['TARDIS_ENABLE=1'] } };
  writeFileSync(join(place, 'config.json'), JSON.stringify(bundle));
  execFileSync(
    join(installation, 'bin/tardis-runc'),
    ['--root', join(place, 'root'), 'create', '--bundle', place, 'job'],
    {
      env: { PATH: process.env.PATH, TARDIS_CONFIG: join(place, 'tardis.json') },
    },
  );
} finally {
  rmSync(place, { recursive: true });
}
