import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { noteEntry } from '../../src/actions/ledger.ts';
import { thisHost } from '../../src/actions/lives.ts';
import { markImage } from '../../src/actions/mark-image.ts';
import { prepareImage } from '../../src/actions/prepare-image.ts';
import { hostWith } from '../support/action-host.ts';
import { useScratch } from '../support/action-scratch.ts';
import { containerdSpec } from '../support/action-specs.ts';
import { problemOf } from '../support/action-thrown.ts';
import { callOf, requestOf } from '../support/machine-samples.ts';

const scratch = useScratch();
const root = () => scratch.at('root');
const host = (given = {}) =>
  hostWith({ config: { ...hostWith().config, checkpointRoot: root(), allowedRoots: [root()], ...given } });
const container = () => ({
  id: 'job-1',
  root: '/run/runc',
  bundle: scratch.at('bundle'),
  key: 'job',
  imageRoot: root(),
});

const request = () => ({
  container: container(),
  call: callOf('checkpoint'),
  request: requestOf(false),
  wasPaused: false,
  life: undefined,
});

function bundle(): void {
  mkdirSync(scratch.at('bundle'));
  writeFileSync(scratch.at('bundle', 'config.json'), containerdSpec());
}

describe('prepareImage', () => {
  it.each([
    { wanted: 'by the host', inHost: true, inJob: '', expected: true },
    { wanted: 'by the job', inHost: false, inJob: 'TARDIS_VERIFY_BY_RESTORE=1', expected: true },
    {
      wanted: 'by the host, not by the job',
      inHost: true,
      inJob: 'TARDIS_VERIFY_BY_RESTORE=0',
      expected: undefined,
    },
    { wanted: 'by nobody', inHost: false, inJob: '', expected: undefined },
  ])('says that the image is to be verified if that is wanted ($wanted)', ({ inHost, inJob, expected }) => {
    mkdirSync(scratch.at('bundle'));
    const text = containerdSpec().replace('"PATH=/bin"', `"PATH=/bin", "${inJob}"`);
    writeFileSync(scratch.at('bundle', 'config.json'), text);
    writeFileSync(scratch.at('home/dist/trial-restore.cjs'), '');
    const given = { ...host({ verifyByRestore: inHost }), home: scratch.at('home') };
    expect(prepareImage(given, request()).isToBeVerified).toBe(expected);
  });

  it('refuses, before the job is frozen, if there is no program that could verify the image', async () => {
    bundle();
    const given = { ...host({ verifyByRestore: true }), home: scratch.at('home') };
    const problem = await problemOf(() => prepareImage(given, request()));
    expect(problem.code).toBe('unproven');
    expect(problem.message).toContain(scratch.at('home/dist/trial-restore.cjs'));
    expect(readdirSync(join(root(), 'job'))).toEqual(['ledger']);
  });

  it('refuses, before the job is frozen, to verify an image of a container whose pids are not its own', async () => {
    mkdirSync(scratch.at('bundle'));
    const text = containerdSpec().replace('{"type": "pid"}', '{"type": "pid", "path": "/proc/7/ns/pid"}');
    writeFileSync(scratch.at('bundle', 'config.json'), text);
    const { code, message } = await problemOf(() => prepareImage(host({ verifyByRestore: true }), request()));
    expect([code, message]).toEqual(['unproven', expect.stringContaining('TARDIS_VERIFY_BY_RESTORE=0')]);
  });

  it('should make directories that only root can look into', () => {
    bundle();
    const { generation, directory } = prepareImage(host(), request());
    expect(generation).toBe(1);
    for (const path of [
      root(),
      join(root(), 'job'),
      `${directory}.partial`,
      `${directory}.partial/checkpoint`,
    ])
      expect(statSync(path).mode & 0o7777, path).toBe(0o700);
  });

  // Found at the restore only, the job would have been dumped for nothing.
  it('should make nothing where the key file cannot be used', async () => {
    const problem = await problemOf(() =>
      prepareImage(host({ manifestKeys: scratch.at('none') }), request()),
    );
    expect(problem.code).toBe('manifest-keys');
    expect(existsSync(root())).toBe(false);
  });

  it('should make no image where memory would lie meanwhile in a place of others', async () => {
    bundle();
    const scratchDir = scratch.at('open');
    mkdirSync(scratchDir);
    chmodSync(scratchDir, 0o777);
    const problem = await problemOf(() => prepareImage(host({ compressionLevel: 1, scratchDir }), request()));
    expect([problem.code, problem.message.includes(scratchDir)]).toEqual(['image-mode', true]);
    expect(readdirSync(join(root(), 'job'))).toEqual(['ledger']);
  });

  it('should make nothing behind a symlink in place of its key', async () => {
    mkdirSync(scratch.at('outside'));
    mkdirSync(root());
    symlinkSync(scratch.at('outside'), join(root(), 'job'));
    expect((await problemOf(() => prepareImage(host(), request()))).code).toBe('image-place');
    expect(readdirSync(scratch.at('outside'))).toEqual([]);
  });
});

describe('prepareImage for a container that could not see the images when it began', () => {
  const unseen = { unseen: 'the images of job could not be reached' };
  const prepare = () => prepareImage(host(), { ...request(), life: unseen });
  const home = () => join(root(), 'job');
  const made = (generation: number) => {
    noteEntry(home(), { kind: 'image', epoch: 1, generation });
    mkdirSync(join(home(), String(generation)), { mode: 0o700 });
  };
  const claimant = { host: 'another', root: '/r', id: 'i', wrapper: { pid: 1, startTime: 1 } };

  beforeEach(() => {
    bundle();
    mkdirSync(home(), { recursive: true, mode: 0o700 });
  });

  it('takes the job up if there is no image', () => {
    expect(prepare()).toMatchObject({ generation: 1, epoch: 1 });
  });

  it('refuses if there is an image that may be restored, and makes nothing', async () => {
    made(4);
    const before = readdirSync(join(home(), 'ledger'));
    const problem = await problemOf(prepare);
    expect(problem.code).toBe('images-unseen');
    expect(problem.message).toContain('when the container began, the images of job could not be reached; ');
    expect(problem.message).toContain('generation 4');
    expect([readdirSync(home()).sort(), readdirSync(join(home(), 'ledger'))]).toEqual([
      ['4', 'ledger'],
      before,
    ]);
    expect((await problemOf(prepare)).code).toBe('images-unseen');
  });

  it('refuses if there is an image that was brought without its ledger', async () => {
    mkdirSync(join(home(), '4'), { mode: 0o700 });
    symlinkSync('4', join(home(), 'current'));
    expect((await problemOf(prepare)).code).toBe('images-unseen');
  });

  it.each([
    ['has failed too often', { kind: 'failed', epoch: 1, generation: 4, host: thisHost(host()) }],
    ['is of a job that has ended by itself since', { kind: 'end', epoch: 1, how: 'finished' }],
  ] as const)('takes the job up if its only image %s', (_, entry) => {
    made(4);
    noteEntry(home(), entry);
    noteEntry(home(), entry);
    expect(prepare().generation).toBe(5);
  });

  it('refuses if another container carries the job on', async () => {
    noteEntry(home(), { kind: 'life', claimant });
    expect((await problemOf(prepare)).code).toBe('life-refused');
  });
});

describe('markImage', () => {
  const image = () => ({ generation: 3, directory: join(root(), 'job', '3') });

  it('should note beside the image that it was refused', () => {
    mkdirSync(image().directory, { recursive: true, mode: 0o700 });
    markImage(host(), container(), image(), 'too bad');
    expect(readdirSync(join(root(), 'job')).sort()).toEqual(['3', '3.failed.jsonl']);
  });

  // As root it would write to the end of any file they name.
  it('should write nothing where others have planted a symlink, or may', () => {
    mkdirSync(scratch.at('outside', '3'), { recursive: true, mode: 0o700 });
    mkdirSync(root());
    symlinkSync(scratch.at('outside'), join(root(), 'job'));
    markImage(host(), container(), image(), 'too bad');
    expect(readdirSync(scratch.at('outside'))).toEqual(['3']);

    writeFileSync(scratch.at('precious'), 'precious');
    mkdirSync(join(root(), 'other', '3'), { recursive: true });
    chmodSync(join(root(), 'other'), 0o777);
    symlinkSync(scratch.at('precious'), join(root(), 'other', '3.failed.jsonl'));
    const other = { generation: 3, directory: join(root(), 'other', '3') };
    markImage(host(), { ...container(), key: 'other' }, other, 'too bad');
    expect(readFileSync(scratch.at('precious'), 'utf8')).toBe('precious');
  });
});
