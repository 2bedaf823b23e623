import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readReportFile } from '../../src/actions/report-archive.ts';
import { machineVersion, stateSchemaVersion, writeState } from '../../src/actions/state-file.ts';
import { report } from '../../src/cli/commands/report.ts';

describe('tardis report', () => {
  let home: string;
  let bundle: string;
  let env: NodeJS.ProcessEnv;

  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'tardis-report-'));
    bundle = join(home, 'bundle');
    mkdirSync(join(bundle, 'tardis-restore'), { recursive: true });
    env = {
      TARDIS_CONFIG: join(home, 'none.json'),
      TARDIS_LOG_FILE: join(home, 'log'),
      TARDIS_RUN_DIR: home,
    };
    writeState({
      schemaVersion: stateSchemaVersion,
      machineVersion,
      ...{ id: 'job', root: '/run/runc', bundle, key: 'job', imageRoot: join(home, 'images') },
      snapshot: { value: { alive: 'running' }, context: { call: { argv: ['a-secret-word'] } } },
      history: [
        { at: '2030-01-01T00:00:00.000Z', event: 'START', from: 'alive.created', to: 'alive.running', ms: 1 },
      ],
    });
    writeFileSync(join(bundle, 'tardis-restore', 'restore.log'), 'said by CRIU\n');
    writeFileSync(join(home, 'log'), '{"id":"job","msg":"ours"}\n{"id":"another","msg":"not ours"}\n');
  });
  afterEach(() => rmSync(home, { recursive: true }));

  const fileIn = async (name: string) => (await readReportFile(join(home, 'r.zip'), name)).toString();

  test('should hold the state, the logs, and the log lines of that container alone', async () => {
    const names = await report(bundle, 'r.zip', { cwd: home, env });
    expect(names).toEqual(['inspect.txt', 'inspect.json', 'tardis.jsonl', 'restore.log']);
    expect(await fileIn('inspect.txt')).toMatch(/^State +running$/m);
    expect(JSON.parse(await fileIn('inspect.json'))).toMatchObject({ id: 'job', state: 'alive.running' });
    expect(await fileIn('tardis.jsonl')).toBe('{"id":"job","msg":"ours"}\n');
    expect(await fileIn('restore.log')).toBe('said by CRIU\n');
    expect(statSync(join(home, 'r.zip')).mode & 0o777).toBe(0o600);
  });

  test('should hold no command line', async () => {
    const names = await report(bundle, 'r.zip', { cwd: home, env });
    for (const name of names) expect(await fileIn(name)).not.toContain('a-secret-word');
  });

  test('should not write over a file that is there', async () => {
    writeFileSync(join(home, 'r.zip'), 'somebody else’s');
    await expect(report(bundle, 'r.zip', { cwd: home, env })).rejects.toThrow(
      /name a file that does not exist yet/,
    );
  });

  test('should say what it looked for when there is no such container', async () => {
    await expect(report('nobody', 'r.zip', { cwd: home, env })).rejects.toThrow(
      /found no container "nobody"/,
    );
  });

  test('should refuse to read a file that is no report', async () => {
    await expect(readReportFile(join(home, 'log'), 'inspect.txt')).rejects.toThrow(
      /is not a report of tardis/,
    );
  });
});
