import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  commit,
  dropUncommitted,
  findCurrentImage,
  isCommitted,
  markFailed,
  openPartial,
  partialOf,
} from '../../src/actions/image-store.ts';
import { appendEntry, readLedger } from '../../src/actions/ledger.ts';
import type { ContainerIdentity, ImageInMaking } from '../../src/machines/vocabulary.ts';
import { useScratch } from '../support/action-scratch.ts';

const scratch = useScratch();
const container = (): ContainerIdentity => ({
  id: 'job',
  root: '/run/runc',
  bundle: '/bundles/job',
  key: 'job-key',
  imageRoot: scratch.at('efs', 'images'),
});
const home = (): string => join(container().imageRoot, 'job-key');
const names = (): string[] =>
  readdirSync(home())
    .filter((name) => name !== 'ledger')
    .sort();
const modeOf = (path: string): number => statSync(path).mode & 0o777;

/** What an earlier life has left: directories end with a slash. */
function leave(...left: string[]): void {
  mkdirSync(home(), { recursive: true });
  for (const name of left) {
    if (name.endsWith('/')) mkdirSync(join(home(), name));
    else writeFileSync(join(home(), name), 'left');
  }
}

/** An image that is being made, by a container that has taken the job up. */
function opened(): ImageInMaking {
  const { last, entries } = readLedger(home());
  const held = entries.findLast(({ kind }) => kind === 'life');
  const claimant = { host: 'here', root: '/run/runc', id: 'job', wrapper: { pid: 1, startTime: 1 } };
  const epoch = held?.number ?? appendEntry(home(), last, { kind: 'life', claimant });
  return { ...openPartial(container()), epoch: epoch ?? 0 };
}

const placeOf = ({ generation, directory }: ImageInMaking) => ({ generation, directory });

async function committed(text = 'memory'): Promise<ImageInMaking> {
  const image = opened();
  writeFileSync(join(partialOf(image), 'checkpoint', 'pages-1.img'), text);
  await commit(container(), image);
  return image;
}

describe('openPartial', () => {
  it.each([
    ['nothing', [], 1],
    ['an image', ['1/'], 2],
    ['images out of order', ['2/', '10/', '9/'], 11],
    ['a partial image', ['3/', '4.partial/'], 5],
    ['a mark of an image that is gone', ['6.failed.jsonl'], 7],
    ['what nobody knows', ['current.9', 'lost+found/', '.nfs0001', 'x7/'], 1],
  ])('should choose the next generation after %s', (_, left, generation) => {
    leave(...left);
    expect(openPartial(container())).toEqual({ generation, directory: join(home(), String(generation)) });
  });

  it('should make an empty directory under another name than the image has in the end', () => {
    const image = openPartial(container());
    expect(partialOf(image)).toBe(join(home(), '1.partial'));
    expect(names()).toEqual(['1.partial']);
    expect(readdirSync(partialOf(image))).toEqual(['checkpoint']);
    expect(readdirSync(join(partialOf(image), 'checkpoint'))).toEqual([]);
  });

  it("should be for root's eyes only", () => {
    const image = openPartial(container());
    for (const path of [
      container().imageRoot,
      home(),
      partialOf(image),
      join(partialOf(image), 'checkpoint'),
    ]) {
      expect(modeOf(path)).toBe(0o700);
    }
  });

  it('should give two that build at the same time an image each', () => {
    const [one, other] = [openPartial(container()), openPartial(container())];
    expect([one.generation, other.generation]).toEqual([1, 2]);
  });
});

describe('commit', () => {
  it('should give the image its name, and tell it by current', async () => {
    const image = await committed();
    expect(names()).toEqual(['1', 'current']);
    expect(readlinkSync(join(home(), 'current'))).toBe('1');
    expect(readFileSync(join(image.directory, 'checkpoint', 'pages-1.img'), 'utf8')).toBe('memory');
    expect(findCurrentImage(container())).toEqual(placeOf(image));
    expect(isCommitted(container(), image)).toBe(true);
  });

  it('should put the new image in the place of the one before, which stays', async () => {
    const before = await committed('old');
    const image = await committed('new');
    expect(names()).toEqual(['1', '2', 'current']);
    expect(findCurrentImage(container())).toEqual(placeOf(image));
    expect([isCommitted(container(), before), isCommitted(container(), image)]).toEqual([true, true]);
  });

  it('should be the same when it is done twice', async () => {
    const image = await committed();
    await commit(container(), image);
    expect(names()).toEqual(['1', 'current']);
    expect(findCurrentImage(container())).toEqual(placeOf(image));
  });

  it('should go on where a wrapper died between the name and current', async () => {
    await committed('old');
    const image = opened();
    await commit(container(), image);
    rmSync(join(home(), 'current'));
    symlinkSync('1', join(home(), 'current'));
    symlinkSync('elsewhere', join(home(), 'current.2'));
    await commit(container(), image);
    expect(names()).toEqual(['1', '2', 'current']);
    expect(findCurrentImage(container())).toEqual(placeOf(image));
  });

  // Two hosts may run the same job for a while: the undoing of this one's checkpoint then keeps its partial image.
  it('should not be told of an image that is partial still, whatever later one is current', async () => {
    const image = opened();
    await committed('of another host');
    expect(isCommitted(container(), image)).toBe(false);
  });

  // On a network file system "not found" may also mean "not now" (existsSync is false for every error).
  it('should leave current alone where there is no image to commit', async () => {
    const before = await committed();
    const image = opened();
    rmSync(partialOf(image), { recursive: true });
    await commit(container(), image).catch(() => {});
    expect(findCurrentImage(container())).toEqual(placeOf(before));
  });
});

describe('findCurrentImage', () => {
  it('should find none where no job of that key ever was', () => {
    expect(findCurrentImage(container())).toBeUndefined();
  });

  it('should find none among partial images, and images that were never told', () => {
    leave('1/', '2.partial/', 'current.1');
    expect(findCurrentImage(container())).toBeUndefined();
  });

  it('should name an image that is gone: its absence is an error, not a fresh start', () => {
    leave();
    symlinkSync('4', join(home(), 'current'));
    expect(findCurrentImage(container())).toEqual({ generation: 4, directory: join(home(), '4') });
  });

  it.each(['../4', '/4', '4.partial', '4/', 'four', '-4', '4 ', '0', '.'])(
    'should refuse a current that names %j',
    (target) => {
      leave();
      symlinkSync(target, join(home(), 'current'));
      expect(() => findCurrentImage(container())).toThrow(
        `${JSON.stringify(target)}; expected a generation's number`,
      );
    },
  );

  it('should refuse a current that is no symlink', () => {
    leave('current/');
    expect(() => findCurrentImage(container())).toThrow('EINVAL');
  });
});

describe('dropUncommitted', () => {
  it('should remove a partial image, and leave every other', async () => {
    await committed();
    const image = opened();
    dropUncommitted(container(), image);
    dropUncommitted(container(), image);
    expect(names()).toEqual(['1', 'current']);
  });

  it('should remove an image that had its name already, but was not current', async () => {
    await committed();
    const image = opened();
    mkdirSync(image.directory);
    dropUncommitted(container(), image);
    expect(names()).toEqual(['1', 'current']);
  });

  it('should never remove the current image', async () => {
    const image = await committed();
    dropUncommitted(container(), image);
    expect(existsSync(join(image.directory, 'checkpoint', 'pages-1.img'))).toBe(true);
    expect(findCurrentImage(container())).toEqual(placeOf(image));
  });

  it('should never remove an image that was current until another host made a later one', async () => {
    const image = await committed('old');
    await committed('of another host');
    dropUncommitted(container(), image);
    expect(names()).toEqual(['1', '2', 'current']);
  });

  it('should leave the image of a generation that begins with the same digit', () => {
    leave('10/', '10.partial/', '1.failed.jsonl');
    dropUncommitted(container(), { generation: 1, directory: join(home(), '1') });
    expect(names()).toEqual(['1.failed.jsonl', '10', '10.partial']);
  });
});

describe('markFailed', () => {
  it('should add a line for every failure beside the image, which stays as it is', async () => {
    const image = await committed();
    const before = readdirSync(image.directory);
    markFailed(image, { container: 'a', reason: 'one\ntwo' });
    markFailed(image, { container: 'b', reason: 'three' });
    const path = join(home(), '1.failed.jsonl');
    const marks = readFileSync(path, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { at: string });
    expect(marks).toEqual([
      { at: expect.any(String), container: 'a', reason: 'one\ntwo' },
      { at: expect.any(String), container: 'b', reason: 'three' },
    ]);
    for (const { at } of marks) expect(new Date(at).toISOString()).toBe(at);
    expect(modeOf(path)).toBe(0o600);
    expect(readdirSync(image.directory)).toEqual(before);
    expect(findCurrentImage(container())).toEqual(placeOf(image));
  });
});
