import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { peakMemory } from '../peak-memory.ts';
import { sideBySide, type Way } from '../side-by-side.ts';
import { atMostMore, atMostTimes, type Row, type Suite } from '../suite.ts';
import { idle, makeBundle, openField, quietly } from '../workloads.ts';

/** What Tardis costs those who do not use it: runc's commands on a container without TARDIS_ENABLE. */
export const passThrough: Suite = async ({ runs, said }) => {
  const field = await openField();
  try {
    const { path } = await makeBundle(field, 'plain', { args: idle });
    const { raw, tardis, env } = field;
    const create = `${raw} create --bundle ${path} plain`;
    const gone = `${raw} delete --force plain`;
    const created = `${gone}\n${create}`;
    const started = `${created}\n${raw} start plain`;
    const commands: { command: string; prepare?: string; hasRun?: true }[] = [
      { command: 'create --bundle BUNDLE plain', prepare: gone },
      { command: 'start plain', prepare: created },
      { command: 'kill plain KILL', prepare: started },
      { command: 'delete --force plain', prepare: started },
      { command: 'state plain', hasRun: true },
      { command: 'ps plain', hasRun: true },
      { command: 'events --stats plain', hasRun: true },
      { command: 'exec plain true', hasRun: true },
    ];
    const rows: Row[] = [];
    for (const { command, prepare, hasRun } of commands) {
      if (hasRun) await quietly(field, started);
      const words = command.replace('BUNDLE', path);
      const ways: Way[] = [raw, tardis].map((program, i) => ({
        name: i ? 'tardis-runc' : 'runc',
        command: `${program} ${words}`,
        ...(prepare === undefined ? {} : { prepare }),
      }));
      said(command);
      const title = `\`${command.split(' ')[0]}\``;
      rows.push(
        atMostMore({ title, unit: 'ms', ways: await sideBySide(ways, { runs: runs * 2, env }) }, 1.5),
      );
    }
    said('200 at once');
    const many = (program: string) =>
      `i=0; while [ $i -lt 200 ]; do ${program} state plain >/dev/null & i=$((i+1)); done; wait`;
    // What any shell script costs that stands in the way of runc.
    const [runc = ''] = raw.split(' ');
    const shell = join(field.stack.dir, 'only-becomes-runc');
    writeFileSync(shell, `#!/bin/sh\nexec ${runc} "$@"\n`, { mode: 0o755 });
    const ways = [
      { name: 'runc', command: many(raw) },
      { name: 'tardis-runc', command: many(tardis) },
      { name: 'a script that only becomes runc', command: many(raw.replace(runc, shell)) },
    ];
    rows.push(
      atMostTimes(
        { title: '200 `state` at once', unit: 'ms', ways: await sideBySide(ways, { runs, env }) },
        1.2,
      ),
    );
    said('memory');
    // The launcher becomes runc: what it needed itself shows where it becomes a program that needs next to nothing.
    const launcher = await peakMemory(
      'tardis-runc before it becomes runc',
      `${field.stack.runtime} state plain`,
      {
        env: { ...env, TARDIS_REAL_RUNC: '/bin/true' },
      },
    );
    const nothing = await peakMemory('/bin/true', '/bin/true', { env });
    rows.push(
      atMostMore({ title: 'memory of the launcher itself', unit: 'MiB', ways: [nothing, launcher] }, 2),
    );
    return { rows };
  } finally {
    await field.stack.stop();
  }
};
