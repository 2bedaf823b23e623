import { join } from 'node:path';
import { sideBySide } from '../side-by-side.ts';
import type { Suite } from '../suite.ts';
import { openField, quietly } from '../workloads.ts';

const mebibytes = 512;

/** What this machine takes for bytes that nobody compresses, whatever moves them: nothing can be faster. */
export const limits: Suite = async ({ runs, said }) => {
  const field = await openField();
  const { dir } = field.stack;
  const source = join('/dev/shm', dir.replaceAll('/', '-'));
  try {
    said(`${mebibytes} MiB`);
    await quietly(field, `dd if=/dev/urandom iflag=fullblock of=${source} bs=1M count=${mebibytes}`);
    const ways = [
      { name: 'copied in memory', prepare: `rm -f ${source}.copy`, command: `cp ${source} ${source}.copy` },
      {
        name: 'written to the disk, and synced',
        prepare: `rm -f ${dir}/written`,
        command: `dd if=${source} of=${dir}/written bs=8M conv=fsync status=none`,
      },
      { name: 'SHA-256 by one core (openssl)', command: `openssl dgst -sha256 ${source} >/dev/null` },
    ];
    const measured = await sideBySide(ways, { runs, env: field.env });
    return { rows: [{ title: `${mebibytes} MiB`, size: mebibytes, unit: 'ms', ways: measured }] };
  } finally {
    await quietly(field, `rm -f ${source} ${source}.copy`);
    await field.stack.stop();
  }
};
