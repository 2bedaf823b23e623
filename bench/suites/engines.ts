import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../test/support/run.ts';
import { waitFor } from '../../test/support/wait.ts';
import { sideBySide } from '../side-by-side.ts';
import { atMostTimes, type Row, type Suite } from '../suite.ts';
import {
  again,
  begin,
  checkpointWay,
  type Field,
  holding,
  makeBundle,
  openField,
  quietly,
  residentBelow,
  restoreWay,
  writeFiles,
} from '../workloads.ts';

const load = { title: '512 MiB and 2,000 files of 50 KiB', mebibytes: 512, files: 2000, bytes: 50 << 10 };

/** The same job beside `podman container checkpoint --export` and `restore --import`, as it is out of the box. */
export const engines: Suite = async ({ runs, said }) => {
  const field = await openField({ keep: 1 });
  const job = { args: holding(load.mebibytes), key: 'job' };
  const bundle = await makeBundle(field, 'job', job);
  const podman = await openPodman(field);
  try {
    const { tardis, stack, env } = field;
    writeFiles(bundle, load.files, load.bytes);
    await begin(field, tardis, bundle, load.mebibytes);
    said('podman run');
    await podman.run(bundle.upper);

    said('checkpoint');
    const archive = join(stack.dir, 'podman', 'job.tar');
    const checkpoints = await sideBySide(
      [
        {
          name: 'podman container checkpoint --export',
          prepare: `rm -f ${archive}`,
          command: `${podman.command} container checkpoint --leave-running --export ${archive} job`,
        },
        checkpointWay(field, bundle),
      ],
      { runs, batch: 3, env },
    );
    const rows: Row[] = [
      atMostTimes({ title: `checkpoint: ${load.title}`, unit: 'ms', ways: checkpoints }, 0.25),
    ];

    said('restore');
    await quietly(field, `${podman.command} rm --force --time 0 job\n${again(field, bundle)}`);
    const restores = await sideBySide(
      [
        {
          name: 'podman container restore --import',
          prepare: `${podman.command} rm --force --ignore --time 0 again`,
          command: `${podman.command} container restore --import ${archive} --name again`,
        },
        restoreWay(field, bundle),
      ],
      { runs, batch: 3, env },
    );
    rows.push(atMostTimes({ title: `restore: ${load.title}`, unit: 'ms', ways: restores }, 0.25));
    return { rows };
  } finally {
    await podman.remove();
    await field.stack.stop();
  }
};

/** A podman with a storage of its own, the same runc, and no rlimits that a container here may not raise. */
async function openPodman({ stack, env, raw }: Field) {
  const home = join(stack.dir, 'podman');
  mkdirSync(home);
  // podman looks for credentials there.
  writeFileSync(join(stack.dir, 'home', 'config.json'), '{}');
  const places = ['root', 'runroot', 'tmpdir'].map((name) => `--${name} ${join(home, name)}`).join(' ');
  const [runc] = raw.split(' ');
  const command = `podman ${places} --storage-driver overlay --cgroup-manager cgroupfs --events-backend none --runtime ${runc}`;
  const sh = (line: string) =>
    run('sh', ['-c', `{ ${line}; } >${home}/said 2>&1 </dev/null || { cat ${home}/said >&2; exit 1; }`], {
      env,
    });
  await sh(`tar --create --directory ${join(stack.dir, 'lower')} . | ${command} import - job:1`);
  return {
    command,
    async run(files: string): Promise<void> {
      const limits = '--ulimit nofile=1024:1024 --ulimit nproc=1000:1000';
      const [file, ...args] = holding(load.mebibytes);
      const words = [file, ...args].map((word) => `'${word}'`).join(' ');
      await sh(
        `${command} run --detach --name job --network none ${limits} --security-opt seccomp=unconfined job:1 ${words}`,
      );
      await sh(`${command} cp ${files}/data job:/data`);
      const { stdout: pid } = await run('sh', ['-c', `${command} inspect --format '{{.State.Pid}}' job`], {
        env,
      });
      const resident = () => residentBelow(pid.trim()) >= load.mebibytes;
      await waitFor('podman’s job to hold its memory', resident, { timeoutMs: 120_000 });
    },
    remove: () =>
      sh(
        `${command} rm --force --all --time 0; ${command} rmi --force --all; umount ${join(home, 'root/overlay')} || :`,
      ),
  };
}
