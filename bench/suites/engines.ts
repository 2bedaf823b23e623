import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ctrEngine } from '../../test/support/engine-ctr.ts';
import { busyboxImage } from '../../test/support/images.ts';
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
  imagesOf,
  makeBundle,
  openField,
  quietly,
  residentBelow,
  restoreWay,
  writeFiles,
} from '../workloads.ts';

const load = { title: '512 MiB and 2,000 files of 50 KiB', mebibytes: 512, files: 2000, bytes: 50 << 10 };

/** The same job beside what podman and containerd have of their own, as they are out of the box. */
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
    await quietly(field, `${tardis} delete --force ${bundle.id}`);

    said('containerd');
    rows.push(...(await containerdRows(field, runs)));
    return { rows };
  } finally {
    await podman.remove();
    await field.stack.stop();
  }
};

/** The same job under containerd: its own checkpoint, which goes through the content store, beside Tardis's. */
async function containerdRows(field: Field, runs: number): Promise<Row[]> {
  const { stack, env } = field;
  const engine = ctrEngine(stack);
  const image = await busyboxImage(stack);
  const ctr = `ctr --address ${stack.socket} --namespace ${stack.namespace}`;
  const job = { image, args: holding(load.mebibytes) };
  const keyed = { ...job, env: { TARDIS_ENABLE: '1', TARDIS_CHECKPOINT_KEY: 'under-containerd' } };
  for (const spec of [
    { id: 'own', runtime: 'runc' as const, ...job },
    { id: 'kept', ...keyed },
  ]) {
    const container = await engine.run(spec);
    writeFiles({ rootfs: join(container.bundle, 'rootfs') }, load.files, load.bytes);
    const pid = await container.pid();
    const resident = () => residentBelow(String(pid)) >= load.mebibytes;
    await waitFor(`${spec.id} to hold its memory`, resident, { timeoutMs: 120_000 });
  }
  const reference = 'tardis.test/own:1';
  const given = join(stack.dir, 'given', 'kept');
  const checkpoints = await sideBySide(
    [
      {
        name: 'ctr containers checkpoint --task --rw',
        prepare: `${ctr} images delete --sync ${reference} >/dev/null 2>&1 || :`,
        command: `${ctr} containers checkpoint --task --rw own ${reference}`,
      },
      {
        name: 'ctr tasks checkpoint, tardis-runc',
        prepare: `rm -rf ${given} ${imagesOf(field, 'under-containerd')}/[0-9]*\nmkdir -p ${given}`,
        command: `${ctr} tasks checkpoint --image-path ${given}/image --work-path ${given} kept`,
      },
    ],
    { runs, batch: 3, env },
  );

  const remove = (id: string): string =>
    `${ctr} tasks delete --force ${id} >/dev/null 2>&1 || :\n${ctr} containers delete ${id} >/dev/null 2>&1 || :`;
  await quietly(field, `${remove('own')}\n${remove('kept')}`);
  const words = job.args.map((word) => `'${word}'`).join(' ');
  const flags = Object.entries(keyed.env).map(([name, value]) => `--env ${name}=${value}`);
  const restores = await sideBySide(
    [
      {
        name: 'ctr containers restore --live --rw',
        prepare: remove('own'),
        command: `${ctr} containers restore --live --rw own ${reference}`,
      },
      {
        name: 'ctr run, tardis-runc',
        prepare: remove('kept'),
        command: `${ctr} run --detach --log-uri file://${stack.dir}/kept.log --runc-binary ${stack.runtime} ${flags.join(' ')} ${image} kept ${words}`,
      },
    ],
    { runs, batch: 3, env },
  );
  await quietly(field, `${remove('own')}\n${remove('kept')}`);
  return [
    atMostTimes({ title: `containerd, checkpoint: ${load.title}`, unit: 'ms', ways: checkpoints }, 0.25),
    atMostTimes({ title: `containerd, restore: ${load.title}`, unit: 'ms', ways: restores }, 0.25),
  ];
}

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
