// Bundles the two programs for the host: one file each, so that a call opens one file and not four hundred.
import { build } from 'esbuild';

await build({
  entryPoints: { 'tardis-runc': 'src/cli/tardis-runc.ts', tardis: 'src/cli/tardis.ts' },
  outdir: 'dist',
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  legalComments: 'none',
  // unzipper asks for it only where it opens an archive in S3.
  external: ['@aws-sdk/client-s3'],
  // Some of the packages are CommonJS and call require().
  banner: {
    js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
  },
  logLevel: 'warning',
});
