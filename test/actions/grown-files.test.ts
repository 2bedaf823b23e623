import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { cutGrownFiles, putCutBack, refuseChangedFiles } from '../../src/actions/grown-files.ts';
import { hostWith } from '../support/action-host.ts';
import { useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';

const scratch = useScratch();
const host = hostWith();
const before = 'what the job had written';
const since = ', and what it wrote after its dump';
const generation = 4;

const log = () => scratch.at('volume', 'logs', 'log');
const file = { path: '/data/logs/log', bytes: before.length, written: true, appended: false };
const files = [file];
const settings = (onGrown: string, readOnly = false) => ({
  mounts: [{ destination: '/data', source: scratch.at('volume'), readOnly }],
  env: new Map([['TARDIS_ON_GROWN_FILES', onGrown]]),
});
const cut = () => cutGrownFiles(host, files, settings('truncate'), generation, scratch.at('rollback'));
const putBack = () => putCutBack(host, scratch.at('rollback'));

const becomeDirectory = () => {
  rmSync(log());
  mkdirSync(log());
};

beforeEach(() => {
  mkdirSync(scratch.at('rollback'));
  writeFileSync(log(), before + since);
  chmodSync(log(), 0o640);
});

describe('refuseChangedFiles', () => {
  const refused = (onGrown = 'refuse', readOnly = false) =>
    problemOf(() => refuseChangedFiles(files, settings(onGrown, readOnly)));

  it('passes files that are as they were at the dump', async () => {
    truncateSync(log(), before.length);
    await refuseChangedFiles(files, settings('refuse'));
  });

  it('refuses one that has grown, and says how to go on', async () => {
    const { code, message } = await refused();
    expect(code).toBe('image-file-grown');
    expect(message).toMatch(
      /\/data\/logs\/log on a volume has 58 bytes, and had 24 when .*GROWN_FILES=truncate/,
    );
  });

  it('passes one of any size that the job only appends to', async () => {
    await refuseChangedFiles([{ ...file, appended: true }], settings('refuse'));
    truncateSync(log(), 3);
    await refuseChangedFiles([{ ...file, appended: true }], settings('refuse'));
  });

  it('passes one that has grown and will be cut back', async () => {
    await refuseChangedFiles(files, settings('truncate'));
  });

  it('refuses to cut what the job could not have written', async () => {
    expect(await refused('truncate', true)).toMatchObject({
      code: 'image-file-grown',
      message: expect.stringContaining('it is not the job that has written there'),
    });
  });

  it.each([
    ['is missing', () => rmSync(log()), 'found no such file'],
    ['has become smaller', () => truncateSync(log(), 3), 'found 3 bytes'],
    ['has become a directory', becomeDirectory, 'found no such file'],
  ])('refuses a file that %s, whatever the setting', async (_, change, words) => {
    change();
    const { code, message } = await refused('truncate');
    expect([code, message]).toEqual(['image-volume-file', expect.stringContaining(words)]);
  });
});

describe('cutGrownFiles', () => {
  it('cuts a file back and keeps what is cut beside it, as its owner had it', async () => {
    await cut();
    expect(readFileSync(log(), 'utf8')).toBe(before);
    const kept = `${log()}.tardis-cut.${generation}`;
    expect(readFileSync(kept, 'utf8')).toBe(since);
    expect(statSync(kept).mode & 0o777).toBe(0o640);
  });

  it('keeps what an earlier restore has cut', async () => {
    await cut();
    appendFileSync(log(), 'again');
    await cut();
    const kept = readdirSync(scratch.at('volume', 'logs')).sort();
    expect(kept).toEqual(['log', 'log.tardis-cut.4', 'log.tardis-cut.4.2']);
    expect(readFileSync(`${log()}.tardis-cut.4.2`, 'utf8')).toBe('again');
  });

  it('leaves what the job only reads: a file of somebody else may be growing there', async () => {
    const read = [{ ...file, written: false }];
    expect((await problemOf(() => refuseChangedFiles(read, settings('truncate')))).message).toContain(
      'it is not the job that has written there',
    );
    await cutGrownFiles(host, read, settings('truncate'), generation, scratch.at('rollback'));
    expect(readFileSync(log(), 'utf8')).toBe(before + since);
  });

  it('finds a name for what is cut of a file with the longest one', async () => {
    const long = `${'ä'.repeat(126)}log`;
    writeFileSync(scratch.at('volume', long), before + since);
    const given = [{ ...file, path: `/data/${long}` }];
    await cutGrownFiles(host, given, settings('truncate'), generation, scratch.at('rollback'));
    const [kept = ''] = readdirSync(scratch.at('volume')).filter((name) => name.includes('.tardis-cut.'));
    expect(readFileSync(scratch.at('volume', kept), 'utf8')).toBe(since);
    await putBack();
    expect(readFileSync(scratch.at('volume', long), 'utf8')).toBe(before + since);
  });

  it('touches no file of the host that somebody has led it to', async () => {
    const secret = scratch.at('outside', 'log');
    writeFileSync(secret, before + since);
    rmSync(log());
    symlinkSync(secret, log());
    await cut();
    renameSync(scratch.at('volume', 'logs'), scratch.at('volume', 'old'));
    symlinkSync(scratch.at('outside'), scratch.at('volume', 'logs'));
    await cut();
    expect(readFileSync(secret, 'utf8')).toBe(before + since);
    expect(readdirSync(scratch.at('outside'))).toEqual(['log']);
  });
});

describe('putCutBack', () => {
  it('leaves files and directory as they were, however far the cut had come and however often it is done', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('before', 'half kept', 'kept', 'cut', 'half put back', 'put back'),
        fc.integer({ min: 1, max: 2 }),
        async (moment, times) => {
          const kept = `${log()}.tardis-cut.${generation}`;
          rmSync(scratch.at('rollback'), { recursive: true });
          mkdirSync(scratch.at('rollback'));
          writeFileSync(log(), before + since);
          await cut();
          if (moment === 'before') rmSync(kept);
          if (moment === 'half kept') truncateSync(kept, 5);
          if (moment === 'half put back') appendFileSync(log(), since.slice(0, 9));
          if (['before', 'half kept', 'kept', 'put back'].includes(moment)) appendFileSync(log(), since);
          if (moment === 'put back') rmSync(kept);
          for (let n = 0; n < times; n++) await putBack();
          expect(readFileSync(log(), 'utf8')).toBe(before + since);
          expect(readdirSync(scratch.at('volume', 'logs'))).toEqual(['log']);
        },
      ),
      { numRuns: 40 },
    );
  });

  it.each([
    ['a little', 'new'],
    ['as much as was cut', '+'.repeat(since.length)],
    ['more than was cut', '+'.repeat(since.length + 9)],
  ])(
    'leaves a file as it is to which somebody has written %s since, and keeps what was cut',
    async (_, more) => {
      await cut();
      appendFileSync(log(), more);
      await putBack();
      expect(readFileSync(log(), 'utf8')).toBe(before + more);
      expect(readFileSync(`${log()}.tardis-cut.${generation}`, 'utf8')).toBe(since);
    },
  );

  it('leaves a file as it is that is smaller now than it was cut to, with what was cut from it', async () => {
    await cut();
    truncateSync(log(), 2);
    await putBack();
    expect(readFileSync(log(), 'utf8')).toBe(before.slice(0, 2));
    expect(readFileSync(`${log()}.tardis-cut.${generation}`, 'utf8')).toBe(since);
  });
});
