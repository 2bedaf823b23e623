import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './run.ts';
import type { Stack } from './stack.ts';

type Descriptor = { mediaType: string; digest: string; size: number };
type Manifest = { mediaType: string; config: Descriptor; layers: Descriptor[] };

/**
 * The same image with another USER, and its tag: this `ctr run` has no flag for the user and takes it from the image.
 * Only the new manifest and config are imported, containerd has the layers.
 */
export async function imageAsUser(stack: Stack, image: string, user: string): Promise<string> {
  const tag = `${image}-as-${user.replaceAll(':', '-')}`;
  const known = (await stack.ctr(['images', 'list', '--quiet'])).stdout.split('\n');
  if (known.includes(tag)) return tag;

  const manifest: Manifest = JSON.parse(await content(stack, await digestOf(stack, image)));
  const config: { config: Record<string, unknown> } = JSON.parse(
    await content(stack, manifest.config.digest),
  );
  const dir = mkdtempSync(join(stack.dir, 'image-'));
  const newConfig = { ...config, config: { ...config.config, User: user } };
  const newManifest = { ...manifest, config: blob(dir, manifest.config.mediaType, newConfig) };
  const described = blob(dir, manifest.mediaType, newManifest);
  const index = {
    schemaVersion: 2,
    manifests: [{ ...described, annotations: { 'io.containerd.image.name': tag } }],
  };
  writeFileSync(join(dir, 'index.json'), JSON.stringify(index));
  writeFileSync(join(dir, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const archive = join(dir, 'image.tar');
  await run('tar', ['--create', '--file', archive, '--directory', dir, 'oci-layout', 'index.json', 'blobs']);
  await stack.ctr(['images', 'import', archive]);
  rmSync(dir, { recursive: true });
  return tag;
}

async function digestOf(stack: Stack, image: string): Promise<string> {
  const { stdout } = await stack.ctr(['images', 'list', `name==${image}`]);
  const digest = /sha256:[0-9a-f]{64}/.exec(stdout)?.[0];
  if (digest === undefined) throw new Error(`containerd has no image ${image}`);
  return digest;
}

async function content(stack: Stack, digest: string): Promise<string> {
  return (await stack.ctr(['content', 'get', digest])).stdout;
}

function blob(dir: string, mediaType: string, value: unknown): Descriptor {
  const text = JSON.stringify(value);
  const digest = createHash('sha256').update(text).digest('hex');
  mkdirSync(join(dir, 'blobs/sha256'), { recursive: true });
  writeFileSync(join(dir, 'blobs/sha256', digest), text);
  return { mediaType, digest: `sha256:${digest}`, size: text.length };
}
