import {
  chmodSync,
  lstatSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { readManifest } from '../../src/actions/manifest.ts';
import type { Container, Engine } from '../support/engine.ts';
import { engines } from '../support/engines.ts';
import { imageNames } from '../support/image-names.ts';
import { busyboxImage, debianImage } from '../support/images.ts';
import { counting, enabled, ticksOf } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { rootfsListing } from '../support/rootfs-digest.ts';
import { type Stack, startStack } from '../support/stack.ts';

describe.skipIf(requireRealStack({ docker: true }).skip)('an image that is not to be trusted', () => {
  let stack: Stack;
  let busybox: string;
  let debian: string;

  beforeAll(async () => {
    stack = await startStack({ docker: true });
    [busybox, debian] = [await busyboxImage(stack), await debianImage(stack)];
  });
  afterAll(() => stack?.stop());
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const home = (key: string) => join(stack.checkpointRoot, key);
  const start = (
    id: string,
    key: string,
    engine: Engine['name'] = 'ctr',
    image = busybox,
  ): Promise<Container> => engines[engine](stack).run({ id, image, args: counting, env: enabled(key) });
  /** Runs a job until it has counted to three and ends it with a checkpoint; answers with its last number. */
  async function checkpointed(key: string, engine: Engine['name'] = 'ctr'): Promise<number> {
    const first = await start(`${key}-1`, key, engine);
    await first.waitForLine(/^tick 3$/);
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    const last = ticksOf(first).at(-1) as number;
    await first.remove();
    return last;
  }
  async function firstTickOf(container: Container): Promise<number | undefined> {
    await container.waitForLine(/^tick \d+$/);
    const [tick] = ticksOf(container);
    await container.remove();
    return tick;
  }
  const warnings = (id: string): string[] =>
    readFileSync(stack.logFile, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((text) => JSON.parse(text) as { level: string; id: string; msg: string })
      .filter((entry) => entry.level === 'warn' && entry.id === id)
      .map(({ msg }) => msg);
  const configure = (change: object): void => {
    const config = JSON.parse(readFileSync(stack.configFile, 'utf8'));
    writeFileSync(stack.configFile, JSON.stringify({ ...config, ...change }));
  };

  test('should be nobody’s but root’s to read or to write, every file of it', async () => {
    const container = await start('modes', 'modes');
    await container.waitForLine(/^tick 3$/);
    await container.checkpoint();
    await container.remove();
    const found = readdirSync(home('modes'), { recursive: true, encoding: 'utf8' });
    expect(found).toEqual(
      expect.arrayContaining(['1/checkpoint/pages-1.img', '1/dump.log', '1/tardis.json']),
    );
    for (const name of ['.', ...found]) {
      const stats = lstatSync(join(home('modes'), name));
      if (stats.isSymbolicLink()) continue;
      expect((stats.mode & 0o7777).toString(8), name).toBe(stats.isDirectory() ? '700' : '600');
      expect([stats.uid, stats.gid], name).toEqual([0, 0]);
    }
  });

  test('should be refused where others may write it, or stand behind a symlink', async () => {
    await checkpointed('open');
    chmodSync(join(home('open'), '1/checkpoint'), 0o770);
    expect(await firstTickOf(await start('open-2', 'open'))).toBe(1);
    expect(warnings('open-2').join()).toMatch(
      /1\/checkpoint has mode 0770, expected one that only its owner/,
    );
    chmodSync(join(home('open'), '1/checkpoint'), 0o700);

    const elsewhere = join(stack.dir, 'elsewhere');
    renameSync(home('open'), elsewhere);
    symlinkSync(elsewhere, home('open'));
    const before = await rootfsListing(elsewhere);
    const second = await start('open-3', 'open');
    await second.waitForLine(/^tick 1$/);
    expect(warnings('open-3').join()).toContain(`${home('open')} is a symlink, expected a directory`);
    const ran = await second.checkpoint({ mayFail: true });
    expect(ran.stderr + ran.stdout).toContain(`${home('open')} is a symlink, expected a directory`);
    expect(await rootfsListing(elsewhere)).toEqual(before);
    await second.waitForLine(new RegExp(`^tick ${ticksOf(second).length + 2}$`));
    await second.remove();
  });

  test('should be refused over another container image', async () => {
    await checkpointed('base');
    expect(await firstTickOf(await start('base-2', 'base', 'ctr', debian))).toBe(1);
    expect(warnings('base-2').join()).toMatch(
      /changes to the container image \w{12}, this container's is \w{12}/,
    );
  });

  // Docker's own layer below the changes is another one for each container.
  test('should be taken over the same one, under Docker, too', async () => {
    const last = await checkpointed('same', 'docker');
    expect(readManifest(join(home('same'), '1')).rootfs.base).toMatch(/^[0-9a-f]{64}$/);
    expect(await firstTickOf(await start('same-2', 'same', 'docker'))).toBe(last + 1);
  });

  test('should be refused where a host with keys finds none of theirs on it, and taken where it does', async () => {
    const keys = join(stack.dir, 'keys.json');
    await checkpointed('unsigned');
    writeFileSync(keys, JSON.stringify({ current: 'a', keys: { a: 'ab'.repeat(32) } }), { mode: 0o600 });
    configure({ manifestKeys: keys });
    try {
      expect(await firstTickOf(await start('unsigned-2', 'unsigned'))).toBe(1);
      expect(warnings('unsigned-2').join()).toContain('is not signed, and this host restores only what');

      const last = await checkpointed('signed');
      expect(readManifest(join(home('signed'), '1')).auth?.keyId).toBe('a');
      expect(await firstTickOf(await start('signed-2', 'signed'))).toBe(last + 1);

      chmodSync(keys, 0o644);
      const third = await start('signed-3', 'signed');
      await third.waitForLine(/^tick 1$/);
      expect(warnings('signed-3').join()).toMatch(
        /the key file .*keys\.json .* has mode 0644, expected 0600/,
      );
      const ran = await third.checkpoint({ mayFail: true });
      expect(ran.exitCode).not.toBe(0);
      expect(ran.stderr + ran.stdout).toMatch(/the key file .*keys\.json .* has mode 0644, expected 0600/);
      await third.waitForLine(new RegExp(`^tick ${ticksOf(third).length + 2}$`));
      await third.remove();
      expect(imageNames(home('signed'))).toEqual(['1', '1.failed.jsonl', 'current']);
    } finally {
      configure({ manifestKeys: undefined });
    }
  });
});
