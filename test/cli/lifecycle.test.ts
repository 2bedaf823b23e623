import { existsSync, lstatSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { indexEntryOf } from '../../src/actions/container-index.ts';
import { takeLock } from '../../src/actions/lock.ts';
import { Problem } from '../../src/actions/problem.ts';
import { saveRollback } from '../../src/actions/rollback.ts';
import { stateFileOf } from '../../src/actions/state-file.ts';
import { carryOut } from '../../src/cli/lifecycle.ts';
import type { ContainerEvent } from '../../src/machines/container-context.ts';
import type { Answer, Shim } from '../../src/machines/vocabulary.ts';
import { imageNames } from '../support/image-names.ts';
import { FakeHost } from '../support/machine-runc.ts';
import { shimAt } from '../support/machine-samples.ts';

let fake: FakeHost;

beforeEach(() => {
  fake = new FakeHost();
});

afterEach(() => {
  fake[Symbol.dispose]();
});

type Plain = Exclude<ContainerEvent['type'], 'RUN' | 'RESTORE' | 'OBSERVED' | 'CHECKPOINT'>;

const callOf = (...words: string[]) => ({
  argv: ['--root', fake.container.root, ...words],
  globals: ['--root', fake.container.root],
  switches: [],
  restoreFlags: [],
});

const give = (event: ContainerEvent, host = fake.host): Promise<Answer> =>
  carryOut(host, fake.container, event, 0);

const ask = (type: Plain, host = fake.host, shim?: Shim): Promise<Answer> =>
  give({ type, call: { ...callOf(type.toLowerCase(), 'job'), shim } }, host);

const checkpoint = (leaveRunning: boolean, shim?: Shim): Promise<Answer> => {
  const imagePath = join(fake.container.bundle, 'criu');
  const request = { leaveRunning, imagePath, flags: [] };
  return give({ type: 'CHECKPOINT', call: { ...callOf('checkpoint', 'job'), shim }, request });
};

const commands = (): string[] => fake.saw().map(({ command }) => command);

const ok: Answer = { status: 0 };
const files = (): string[] => imageNames(join(fake.container.imageRoot, 'job-key'));

describe('a lifecycle command', () => {
  it('should be written down before runc does it, and again once it is done', async () => {
    const rests = [];
    for (const type of ['CREATE', 'START', 'PAUSE', 'RESUME', 'DELETE'] as const) {
      expect(await ask(type)).toEqual(ok);
      rests.push(fake.path);
    }
    expect(rests).toEqual(['alive.created', 'alive.running', 'alive.paused', 'alive.running', 'deleted']);
    expect(fake.saw().map(({ command, path }) => [command, path])).toEqual([
      ['create', 'alive.creating.fromScratch'],
      ['start', 'alive.starting'],
      ['pause', 'alive.pausing'],
      ['resume', 'alive.resuming'],
      ['delete', 'deleting'],
    ]);
  });

  it('should finish a pause that runc gives up because the freezer is not quick enough', async () => {
    for (const type of ['CREATE', 'START'] as const) await ask(type);
    fake.fail('pause', 'unable to freeze');
    expect(await ask('PAUSE')).toEqual({ status: 0 });
    expect([fake.path, fake.frozen]).toEqual(['alive.paused', true]);
  });

  it('should let the container run on where Tardis cannot freeze it, either', async () => {
    for (const type of ['CREATE', 'START'] as const) await ask(type);
    fake.fail('pause', 'unable to freeze');
    rmSync(join(fake.container.bundle, '../freezer/cgroup.events'));
    expect((await ask('PAUSE')).status).toBe(3);
    expect([fake.path, fake.frozen]).toEqual(['alive.running', false]);
  });

  it('should add to the history what it went through, and for how long', async () => {
    await ask('CREATE');
    await ask('START');
    await ask('KILL');
    expect(fake.state.history.map(({ event, from, to }) => `${event}: ${from} → ${to}`)).toEqual([
      'CREATE: new → alive.creating.lookingForImage',
      'CREATE: alive.creating.lookingForImage → alive.creating.fromScratch',
      'CREATE: alive.creating.fromScratch → alive.created',
      'START: alive.created → alive.starting',
      'START: alive.starting → alive.running',
      'KILL: alive.running → alive.running',
    ]);
    for (const { at, ms } of fake.state.history) {
      expect(new Date(at).toISOString()).toBe(at);
      expect(ms).toBeGreaterThanOrEqual(0);
    }
  });

  it('should make a container known to the launcher for as long as there is one', async () => {
    const { runDir } = fake.host.config;
    const entry = indexEntryOf(runDir, fake.container.root, 'job');
    await ask('CREATE');
    expect(lstatSync(entry).isSymbolicLink()).toBe(true);
    await ask('DELETE');
    expect(existsSync(entry)).toBe(false);
    expect(existsSync(join(runDir, 'locks', fake.container.root, 'job'))).toBe(false);
  });

  it("should answer with runc's status where it fails, and leave the container as it was", async () => {
    fake.fail('create', '');
    expect(await ask('CREATE')).toEqual({ status: 3 });
    expect(fake.path).toBe('alive.failed');
    expect(existsSync(indexEntryOf(fake.host.config.runDir, fake.container.root, 'job'))).toBe(false);
    fake.fail('create', undefined);

    await ask('CREATE');
    fake.fail('start', '');
    expect(await ask('START')).toEqual({ status: 3 });
    expect(fake.path).toBe('alive.created');
    fake.fail('start', undefined);
    expect(await ask('START')).toEqual(ok);
  });

  it('should be refused with the reason, before runc is called, where the machine does not allow it', async () => {
    await ask('CREATE');
    const before = readFileSync(stateFileOf(fake.container.bundle), 'utf8');
    const refusal = await ask('RESUME').catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(Problem);
    expect(refusal).toMatchObject({ code: 'refused', message: 'cannot resume a container that is created' });
    expect(fake.saw().map(({ command }) => command)).toEqual(['create']);
    expect(readFileSync(stateFileOf(fake.container.bundle), 'utf8')).toBe(before);
  });

  it('should not wait for another one, if it must not', async () => {
    await ask('CREATE');
    const lock = takeLock(fake.host.config.runDir, fake.container.root, 'job', { timeoutSeconds: 0 });
    await expect(ask('START')).rejects.toMatchObject({ name: 'Problem', code: 'locked' });
    lock.release();
    expect(fake.saw()).toHaveLength(1);
    expect(await ask('START')).toEqual(ok);
  });

  it('should leave the lock free, also after a refusal', async () => {
    await ask('CREATE');
    await expect(ask('RESUME')).rejects.toThrow();
    takeLock(fake.host.config.runDir, fake.container.root, 'job', { timeoutSeconds: 0 }).release();
  });

  it.each([
    ['of another machine', { machineVersion: 2 }, 'state-broken', /machine 1\).*machineVersion/s],
    ['of another schema', { schemaVersion: 7 }, 'state-broken', /schema 1,.*schemaVersion/s],
    [
      'in a state that is not known',
      { snapshot: { value: 'asleep', context: {} } },
      'state-unknown',
      /does not know/,
    ],
    ['without a snapshot', { snapshot: undefined }, 'state-broken', /snapshot/],
  ])('should touch nothing where the state file is %s', async (_, change, code, message) => {
    await ask('CREATE');
    const file = stateFileOf(fake.container.bundle);
    const text = JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...change });
    writeFileSync(file, text);
    const refusal = await ask('START').catch((error: unknown) => error);
    expect(refusal).toMatchObject({ name: 'Problem', code, message: expect.stringMatching(message) });
    expect(fake.saw()).toHaveLength(1);
    expect(readFileSync(file, 'utf8')).toBe(text);
  });

  it('should recover first where a wrapper died over the one before', async () => {
    for (const type of ['CREATE', 'START', 'PAUSE'] as const) await ask(type);
    fake.dieAt('pause');
    expect(fake.path).toBe('alive.pausing');
    fake.says('paused');
    expect(await ask('RESUME')).toEqual(ok);
    expect(fake.path).toBe('alive.running');
    expect(fake.state.history.slice(-4).map(({ event, from, to }) => [event, from, to])).toEqual([
      ['INTERRUPTED', 'alive.pausing', 'recovering'],
      ['INTERRUPTED', 'recovering', 'alive.paused'],
      ['RESUME', 'alive.paused', 'alive.resuming'],
      ['RESUME', 'alive.resuming', 'alive.running'],
    ]);
  });

  it('should put the root file system right before a create where a wrapper died over a restore', async () => {
    const file = join(fake.container.bundle, 'rootfs', 'file');
    writeFileSync(file, "the image's own");
    await ask('CREATE');
    await saveRollback(fake.host, fake.container);
    fake.interrupt({ alive: 'restoring' });
    writeFileSync(file, "the checkpointed job's");
    expect(await ask('CREATE')).toEqual(ok);
    expect(readFileSync(file, 'utf8')).toBe("the image's own");
    expect(fake.saw().map(({ command }) => command)).toEqual(['create', 'create']);
  });
});

describe('a checkpoint', () => {
  beforeEach(async () => {
    await ask('CREATE');
    await ask('START');
  });

  it('should end the job only once its image is current', async () => {
    expect(await checkpoint(false)).toEqual(ok);
    expect(fake.path).toBe('alive.checkpointed');
    expect(fake.saw().slice(2)).toEqual([
      { command: 'checkpoint', path: 'alive.checkpointing/dumping', frozen: true, current: '' },
      { command: 'delete', path: 'alive.checkpointing/endingJob', frozen: true, current: '1' },
    ]);
    expect(files()).toEqual(['1', 'current']);
  });

  it('should let the job run on, and leave no image, where the dump fails', async () => {
    fake.fail('checkpoint', 'level=error msg="criu failed"\n');
    const answer = await checkpoint(false);
    expect(answer).toEqual({ status: 1, message: expect.stringContaining('criu failed') });
    expect([fake.path, fake.frozen, files()]).toEqual(['alive.running', false, []]);
  });

  it('should be undone by the next command where its wrapper died over the dump', async () => {
    fake.fail('checkpoint', 'no');
    await checkpoint(true);
    fake.dieAt('checkpoint');
    expect([fake.path, fake.frozen]).toEqual(['alive.checkpointing', true]);
    expect(await ask('PAUSE')).toEqual(ok);
    expect([fake.path, fake.frozen, files()]).toEqual(['alive.paused', false, []]);
  });

  it('should be finished by the next command where its wrapper died over the end of the job', async () => {
    await checkpoint(false);
    fake.dieAt('delete');
    const refusal = await ask('PAUSE').catch((error: unknown) => error);
    expect(refusal).toMatchObject({ message: 'cannot pause a container that is checkpointed' });
    expect(fake.saw().map(({ command }) => command)).toEqual([
      'create',
      'start',
      'checkpoint',
      'delete',
      'delete',
    ]);
    expect(files()).toEqual(['1', 'current']);
  });

  it('should not be finished for a job that has run on since', async () => {
    await checkpoint(false);
    fake.dieAt('delete');
    fake.thaw();
    expect(await ask('PAUSE')).toEqual(ok);
    expect(fake.saw().map(({ command }) => command)).toEqual([
      ...['create', 'start', 'checkpoint', 'delete'],
      'pause',
    ]);
  });

  it('should be refused for a job that has ended by itself', async () => {
    fake.says('stopped');
    await expect(checkpoint(false)).rejects.toThrow('cannot checkpoint a container that is stopped');
    expect(fake.path).toBe('alive.stopped');
    expect(fake.saw().map(({ command }) => command)).toEqual(['create', 'start']);
  });

  it('should say why the job could not be ended, and let it run on', async () => {
    fake.fail('delete', 'level=error msg="cannot kill"\n');
    expect(await checkpoint(false)).toEqual({ status: 1, message: expect.stringContaining('cannot kill') });
    expect([fake.path, fake.frozen, files()]).toEqual(['alive.running', false, ['1', 'current']]);
  });
});

describe('a checkpoint of a job that is paused', () => {
  const pause = async (shim?: Shim) => {
    for (const type of ['CREATE', 'START'] as const) await ask(type);
    await ask('PAUSE', fake.host, shim);
    fake.freeze();
  };

  it('lets the job run on if it fails and the engine had paused for it, and answers the resume itself', async () => {
    await pause(shimAt(0));
    fake.fail('checkpoint', 'no');
    expect((await checkpoint(false, shimAt(10))).status).toBe(1);
    expect([fake.path, fake.frozen, files()]).toEqual(['alive.running', false, []]);
    expect(await ask('RESUME')).toEqual(ok);
    expect([fake.path, commands()]).toEqual(['alive.running', ['create', 'start', 'pause', 'checkpoint']]);
    await expect(ask('RESUME')).rejects.toMatchObject({ code: 'refused' });
  });

  it('dumps it frozen, and lets it run on before its image is sealed', async () => {
    await pause(shimAt(0));
    expect(await checkpoint(true, shimAt(10))).toEqual(ok);
    expect(fake.saw().at(-1)).toMatchObject({ command: 'checkpoint', frozen: true });
    expect([fake.path, fake.frozen]).toEqual(['alive.running', false]);
    expect(await ask('RESUME')).toEqual(ok);
    expect(commands().at(-1)).toBe('checkpoint');
  });

  it('leaves it paused if it fails and anybody else had paused it', async () => {
    await pause();
    fake.fail('checkpoint', 'no');
    expect((await checkpoint(false, shimAt(10))).status).toBe(1);
    expect([fake.path, fake.frozen]).toEqual(['alive.paused', true]);
  });

  it('lets it run on if its wrapper dies, and answers the resume of the engine itself', async () => {
    await pause(shimAt(0));
    fake.fail('checkpoint', 'no');
    await checkpoint(true, shimAt(10));
    fake.dieAt('checkpoint');
    expect([fake.path, fake.frozen]).toEqual(['alive.checkpointing', true]);
    fake.says('running');
    expect(await ask('RESUME')).toEqual(ok);
    expect([fake.path, fake.frozen, commands().includes('resume')]).toEqual(['alive.running', false, false]);
  });

  it('leaves it paused if its wrapper dies and anybody else had paused it', async () => {
    await pause();
    fake.fail('checkpoint', 'no');
    await checkpoint(true, shimAt(10));
    fake.dieAt('checkpoint');
    await ask('KILL');
    expect([fake.path, fake.frozen]).toEqual(['alive.paused', true]);
  });
});

describe('a lifecycle command whose images are out of reach', () => {
  it('creates a container from scratch, whose first checkpoint takes the job up if it has no image', async () => {
    expect(await ask('CREATE', fake.outOfReach())).toEqual(ok);
    expect(fake.state.snapshot.context).toMatchObject({
      life: { unseen: expect.stringContaining('did not answer') },
      failure: { code: 'images-unreachable' },
    });
    await ask('START');
    fake.backInReach();
    expect(await checkpoint(true)).toEqual(ok);
    expect(fake.state.snapshot.context).toMatchObject({ life: { epoch: 1 } });
  });

  it('creates a container whose checkpoint is refused if it would supersede an image, and leaves the job running', async () => {
    for (const type of ['CREATE', 'START'] as const) await ask(type);
    expect(await checkpoint(true)).toEqual(ok);
    await ask('DELETE');
    expect(files()).toEqual(['1', 'current']);
    await ask('CREATE', fake.outOfReach());
    await ask('START');
    fake.backInReach();
    expect(await checkpoint(false)).toEqual({ status: 1, message: expect.stringContaining('generation 1') });
    expect(fake.state.snapshot.context).toMatchObject({ failure: { code: 'images-unseen' } });
    expect([fake.path, fake.frozen, files()]).toEqual(['alive.running', false, ['1', 'current']]);
  });

  it('fails a create and starts nothing if the host wants that, and creates at the next try', async () => {
    expect(await ask('CREATE', fake.outOfReach({ onUnreachable: 'fail' }))).toEqual({
      status: 1,
      message: expect.stringMatching(/could not be reached .*onUnreachable says so; try again$/),
    });
    const { runDir } = fake.host.config;
    expect([fake.path, commands()]).toEqual(['alive.failed', []]);
    expect(existsSync(indexEntryOf(runDir, fake.container.root, 'job'))).toBe(false);
    expect(existsSync(join(runDir, 'locks', fake.container.root, 'job'))).toBe(false);
    fake.backInReach();
    expect(await ask('CREATE')).toEqual(ok);
    expect([fake.path, commands()]).toEqual(['alive.created', ['create']]);
  });

  it('fails a checkpoint before the job is frozen', async () => {
    for (const type of ['CREATE', 'START'] as const) await ask(type);
    const request = { leaveRunning: false, imagePath: join(fake.container.bundle, 'criu'), flags: [] };
    const event = { type: 'CHECKPOINT', call: callOf('checkpoint', 'job'), request } as const;
    expect(await give(event, fake.outOfReach())).toEqual({
      status: 1,
      message: expect.stringContaining('did not answer within 0.5 s'),
    });
    expect([fake.path, fake.frozen, commands()]).toEqual(['alive.running', false, ['create', 'start']]);
  });

  it('deletes a container, and lets its life be as it was', async () => {
    for (const type of ['CREATE', 'START'] as const) await ask(type);
    expect(await ask('DELETE', fake.outOfReach())).toEqual(ok);
    expect([fake.path, commands().at(-1)]).toEqual(['deleted', 'delete']);
  });
});
