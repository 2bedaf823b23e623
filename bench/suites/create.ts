import { peakMemory } from '../peak-memory.ts';
import { sideBySide } from '../side-by-side.ts';
import { atMostMore, type Row, type Suite } from '../suite.ts';
import { idle, makeBundle, openField } from '../workloads.ts';

/** What Tardis costs a container that it looks after, while nothing is checkpointed: one without an image. */
export const create: Suite = async ({ runs, said }) => {
  const field = await openField();
  try {
    const { path } = await makeBundle(field, 'job', { args: idle, key: 'job' });
    const { raw, tardis, env } = field;
    const commands: [words: string, before: string[]][] = [
      [`create --bundle ${path} job`, []],
      ['start job', [`create --bundle ${path} job`]],
      ['kill job KILL', [`create --bundle ${path} job`, 'start job']],
      ['delete --force job', [`create --bundle ${path} job`, 'start job']],
    ];
    const rows: Row[] = [];
    const memory: Row[] = [];
    for (const [words, before] of commands) {
      // Both are given what they made themselves: to runc alone, the bundle's TARDIS_ENABLE means nothing.
      const ways = [raw, tardis].map((program, i) => ({
        name: i ? 'tardis-runc' : 'runc',
        command: `${program} ${words}`,
        prepare: [`${tardis} delete --force job`, ...before.map((line) => `${program} ${line}`)].join('\n'),
      }));
      const [command = ''] = words.split(' ');
      said(command);
      rows.push(
        atMostMore({ title: `\`${command}\``, unit: 'ms', ways: await sideBySide(ways, { runs, env }) }, 40),
      );
      const peaks = [];
      for (const { name, command, prepare } of ways)
        peaks.push(await peakMemory(name, command, { prepare, env }));
      memory.push(atMostMore({ title: `\`${command}\`, memory`, unit: 'MiB', ways: peaks }, 70));
    }
    return { rows: [...rows, ...memory] };
  } finally {
    await field.stack.stop();
  }
};
