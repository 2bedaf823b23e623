// Bundles the two programs for the host: one file each, so that a call opens one file and not four hundred. As CommonJS,
// in which what is imported lazily, Node's own modules included, is not even begun before it is needed.
import { createHash } from 'node:crypto';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';
import { rehearse } from './rehearse.mjs';

const { outputFiles } = await build({
  write: false,
  entryPoints: {
    'tardis-runc': 'src/cli/tardis-runc.ts',
    tardis: 'src/cli/tardis.ts',
    load: 'src/cli/load.ts',
    'trial-restore': 'src/cli/trial-restore.ts',
  },
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
// Whole at every moment: calls go on while they are replaced. The last line is what src/cli/load.ts knows a program by.
for (const { path, contents } of outputFiles) {
  const mark = `//# build ${createHash('sha256').update(contents).digest('hex')}\n`;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.draft`, Buffer.concat([contents, Buffer.from(mark)]));
  renameSync(`${path}.draft`, path);
}
rehearse(join(import.meta.dirname, '../dist'));

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
