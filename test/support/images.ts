import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buildBusyboxLayer } from './busybox-layer.ts';
import { cached } from './cache.ts';
import { buildDebianLayer, debianRecipe } from './debian-layer.ts';
import { archiveImage } from './image-archive.ts';
import type { Stack } from './stack.ts';

/** Gives a stack a busybox image, in each of its engines, and returns the tag. Takes a fraction of a second. */
export async function busyboxImage(stack: Stack): Promise<string> {
  const tag = 'tardis.test/busybox:1';
  const dir = mkdtempSync(join(stack.dir, 'image-'));
  await buildBusyboxLayer(dir);
  await load(stack, await archiveImage(dir, tag));
  rmSync(dir, { recursive: true });
  return tag;
}

/**
 * Gives a stack a Debian image with python3, numpy, redis, postgres, nginx and sqlite3, and returns the tag. The first
 * call on a host builds it, which takes about a minute.
 */
export async function debianImage(stack: Stack): Promise<string> {
  const tag = 'tardis.test/debian:1';
  const { release, digest } = debianRecipe();
  const place = await cached(`debian-${release}-${digest}`, async (dir) => {
    await buildDebianLayer(dir);
    await archiveImage(dir, tag);
    rmSync(join(dir, 'layer.tar')); // It is in the archive now.
  });
  await load(stack, join(place, 'image.tar'));
  return tag;
}

async function load(stack: Stack, archive: string): Promise<void> {
  await stack.ctr(['images', 'import', archive]);
  if (stack.hasDocker) await stack.docker(['load', '--quiet', '--input', archive]);
}
