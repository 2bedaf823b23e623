// Lets the program live through a container's life once, with a stand-in for runc and nothing of the host's, so that V8's
// compiled form of what it needs then is kept beside it (src/cli/load.ts).
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Keeps runc's record of a container whose init is the process that rehearses, and dumps a file of zeros. */
const standIn = (place) => `#!/bin/sh
for word; do
  case $word in
    --version) echo 'runc version 1.0.0' && exit ;;
    create) mkdir -p ${place}/root/job && cp ${place}/record ${place}/root/job/state.json && exit ;;
    delete) rm -rf ${place}/root/job && exit ;;
    state) echo '{ "status": "running" }' && exit ;;
    checkpoint) for image in ${place}/images/job/*.partial/checkpoint; do head -c 9000000 /dev/zero >$image/pages-1.img; done && exit ;;
    start | kill | pause | resume) exit ;;
  esac
done
`;

const life = ['create', 'start', 'checkpoint', 'kill', 'delete'];

const loading =
  'const [load, command, program, ...argv] = process.argv.slice(1); require(load).load(program, { command, keep: true }).main(argv)';

/**
 * @param dist the directory with the program and its loader.
 * @throws Error where the program cannot even create a container.
 */
export function rehearse(dist) {
  const place = mkdtempSync(join(tmpdir(), 'tardis-build-'));
  const write = (name, text, mode = 0o644) => writeFileSync(join(place, name), text, { mode });
  try {
    for (const directory of ['freezer', 'bundle/rootfs', 'criu', 'work'])
      mkdirSync(join(place, directory), { recursive: true });
    write('runc', standIn(place), 0o755);
    write('freezer/cgroup.freeze', '0');
    write('freezer/cgroup.events', 'populated 1\nfrozen 1\n');
    write('freezer/cgroup.procs', '');
    const [, fields = ''] = readFileSync('/proc/self/stat', 'utf8').split(') ');
    const record = {
      init_process_pid: process.pid,
      init_process_start: Number(fields.split(' ')[19]),
      cgroup_paths: { '': join(place, 'freezer') },
    };
    write('record', JSON.stringify(record));
    const jobs = { args: ['job'], cwd: '/', env: ['TARDIS_ENABLE=1', 'TARDIS_CHECKPOINT_KEY=job'] };
    write('bundle/config.json', JSON.stringify({ root: { path: 'rootfs' }, process: jobs }));
    const settings = {
      checkpointRoot: join(place, 'images'),
      runDir: join(place, 'run'),
      scratchDir: join(place, 'scratch'),
      logFile: join(place, 'log'),
    };
    write('tardis.json', JSON.stringify(settings));
    const own = {
      create: ['--bundle', join(place, 'bundle')],
      checkpoint: ['--image-path', join(place, 'criu'), '--work-path', join(place, 'work')],
    };
    const env = {
      PATH: process.env.PATH,
      TARDIS_CONFIG: join(place, 'tardis.json'),
      TARDIS_LAUNCH_RUNC: join(place, 'runc'),
    };
    for (const command of life) {
      const programs = [join(dist, 'load.cjs'), command, join(dist, 'tardis-runc.cjs')];
      const argv = ['--root', join(place, 'root'), command, ...(own[command] ?? []), 'job'];
      const { status } = spawnSync(process.execPath, ['-e', loading, '--', ...programs, ...argv], {
        stdio: 'ignore',
        env,
      });
      // What a host cannot do (there is no tar, say) is compiled when it is called for.
      if (command === 'create' && status !== 0)
        throw new Error(`the program that was built cannot create a container: it ended with ${status}`);
    }
  } finally {
    rmSync(place, { recursive: true });
  }
}
