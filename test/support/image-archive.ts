import { createHash } from 'node:crypto';
import { createReadStream, writeFileSync } from 'node:fs';
import { arch } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { run } from './run.ts';

/**
 * Turns `<dir>/layer.tar`, a root file system, into `<dir>/image.tar`, a one-layer image in the format of `docker
 * save`: the one that `docker load` and `ctr image import` both read. `dir` is left with these two files more.
 */
export async function archiveImage(dir: string, tag: string): Promise<string> {
  const config = JSON.stringify({
    architecture: arch() === 'x64' ? 'amd64' : arch(),
    os: 'linux',
    config: { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['sh'] },
    rootfs: { type: 'layers', diff_ids: [`sha256:${await sha256(join(dir, 'layer.tar'))}`] },
    history: [{ created_by: 'tardis tests' }],
  });
  const configName = `${createHash('sha256').update(config).digest('hex')}.json`;
  writeFileSync(join(dir, configName), config);
  const manifest = [{ Config: configName, RepoTags: [tag], Layers: ['layer.tar'] }];
  writeFileSync(join(dir, 'manifest.json'), JSON.stringify(manifest));
  const archive = join(dir, 'image.tar');
  await run('tar', [
    '--create',
    '--file',
    archive,
    '--directory',
    dir,
    'manifest.json',
    configName,
    'layer.tar',
  ]);
  return archive;
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}
