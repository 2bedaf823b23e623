import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { CrashJob, type Template } from '../support/crash-job.ts';
import { type DirectRunc, directRunc } from '../support/direct-runc.ts';
import { ctrEngine } from '../support/engine-ctr.ts';
import { busyboxImage } from '../support/images.ts';
import { counting } from '../support/jobs.ts';
import { requireRealStack } from '../support/requires.ts';
import { run } from '../support/run.ts';
import { type Stack, startStack } from '../support/stack.ts';

/** An OCI config.json, as far as these tests change it. */
interface Config {
  hostname?: string;
  domainname?: string;
  annotations?: Record<string, string>;
  root: { readonly: boolean };
  process: Record<string, unknown> & { args: string[]; env: string[]; rlimits: object[] };
  mounts: { destination: string; type?: string; source?: string; options?: string[] }[];
  linux: Record<string, unknown> & { maskedPaths: string[]; namespaces: { type: string }[] };
}

/** What becomes of a field that a new container's definition has otherwise than the one that was dumped. */
type Fate =
  /** The restored job has the new value: shown by this. */
  | { inForce: (now: { pid: number; job: CrashJob }) => void | Promise<void> }
  /** The image is refused, in these words. */
  | { refused: RegExp }
  /** Nothing depends on it. */
  | { irrelevant: string };

interface Row {
  title: string;
  field: string;
  change: (config: Config) => void;
  fate: Fate;
}

const statusOf = (pid: number, file: string): string => readFileSync(`/proc/${pid}/${file}`, 'utf8');
const inUts = async (pid: number, words: string[]) =>
  (await run('nsenter', [`--uts=/proc/${pid}/ns/uts`, ...words])).stdout;
const another = (name: string) => new RegExp(`is of another container \\(it differs in ${name}\\)`);
const confined = (words: string) => new RegExp(`the new container allows less than the one .*${words}`);

const rows: Row[] = [
  {
    title: 'another host name',
    field: 'hostname',
    change: (config) => {
      config.hostname = 'new-name';
    },
    fate: {
      inForce: async ({ pid }) => expect(await inUts(pid, ['uname', '-n'])).toBe('new-name'),
    },
  },
  {
    title: 'a domain name',
    field: 'domainname',
    change: (config) => {
      config.domainname = 'new.domain';
    },
    fate: {
      inForce: async ({ pid }) =>
        expect(await inUts(pid, ['cat', '/proc/sys/kernel/domainname'])).toBe('new.domain'),
    },
  },
  {
    title: 'a lower limit of open files',
    field: 'process.rlimits',
    change: (config) => {
      config.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 200, hard: 300 }];
    },
    fate: {
      inForce: ({ pid }) => expect(statusOf(pid, 'limits')).toMatch(/^Max open files\s+200\s+300\s/m),
    },
  },
  {
    title: 'a lower limit of processes, where the job has moved its own',
    field: 'process.rlimits',
    change: (config) => {
      config.process.rlimits = [{ type: 'RLIMIT_NPROC', soft: 50, hard: 60 }];
    },
    fate: {
      inForce: ({ pid }) => expect(statusOf(pid, 'limits')).toMatch(/^Max processes\s+40\s+60\s/m),
    },
  },
  {
    title: 'another oom_score_adj',
    field: 'process.oomScoreAdj',
    change: (config) => {
      config.process.oomScoreAdj = 321;
    },
    fate: { inForce: ({ pid }) => expect(statusOf(pid, 'oom_score_adj').trim()).toBe('321') },
  },
  {
    title: 'a limit of processes',
    field: 'linux.resources',
    change: (config) => {
      config.linux.resources = { pids: { limit: 77 } };
    },
    fate: {
      inForce: ({ pid }) => {
        const path = /^\d*:(?:pids)?:(.*)$/m.exec(statusOf(pid, 'cgroup'))?.[1] ?? '';
        const places = [`/sys/fs/cgroup/pids${path}`, `/sys/fs/cgroup${path}`];
        const found = places.flatMap((place) => {
          try {
            return [readFileSync(join(place, 'pids.max'), 'utf8').trim()];
          } catch {
            return [];
          }
        });
        expect(found).toContain('77');
      },
    },
  },
  {
    title: 'no new privileges',
    field: 'process.noNewPrivileges',
    change: (config) => {
      config.process.noNewPrivileges = true;
    },
    fate: { refused: confined('process.noNewPrivileges is set') },
  },
  {
    title: 'a filter of system calls',
    field: 'linux.seccomp',
    change: (config) => {
      const syscalls = [{ names: ['mount'], action: 'SCMP_ACT_ERRNO' }];
      config.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', syscalls };
    },
    fate: { refused: confined('linux.seccomp forbids mount') },
  },
  {
    title: 'a masked path more',
    field: 'linux.maskedPaths',
    change: ({ linux }) => {
      linux.maskedPaths = [...linux.maskedPaths, '/proc/version'];
    },
    fate: { refused: confined('linux.maskedPaths has /proc/version') },
  },
  {
    title: 'a read-only path more',
    field: 'linux.readonlyPaths',
    change: ({ linux }) => {
      linux.readonlyPaths = [...(linux.readonlyPaths as string[]), '/proc/tty'];
    },
    fate: { refused: confined('linux.readonlyPaths has /proc/tty') },
  },
  {
    title: 'a read-only root file system',
    field: 'root',
    change: ({ root }) => {
      root.readonly = true;
    },
    fate: { refused: confined('root.readonly is set') },
  },
  {
    title: 'a mount that is read-only now',
    field: 'mounts',
    change: ({ mounts }) => {
      const shm = mounts.find(({ destination }) => destination === '/dev/shm');
      shm?.options?.push('ro');
    },
    fate: { refused: confined('mounts have the option ro at /dev/shm') },
  },
  {
    title: 'a mount more',
    field: 'mounts',
    change: ({ mounts }) => {
      mounts.push({ destination: '/more', type: 'tmpfs', source: 'tmpfs' });
    },
    fate: { refused: another('mountDestinations') },
  },
  {
    title: 'another command',
    field: 'process.args',
    change: ({ process }) => {
      process.args = [...counting, 'more'];
    },
    fate: { refused: another('args') },
  },
  {
    title: 'another user',
    field: 'process.user',
    change: ({ process }) => {
      process.user = { uid: 0, gid: 7 };
    },
    fate: { refused: another('user') },
  },
  {
    title: 'another working directory',
    field: 'process.cwd',
    change: ({ process }) => {
      process.cwd = '/tmp';
    },
    fate: { refused: another('cwd') },
  },
  {
    title: 'a capability less',
    field: 'process.capabilities',
    change: ({ process }) => {
      process.capabilities = {};
    },
    fate: { refused: another('capabilities') },
  },
  {
    title: 'a namespace less',
    field: 'linux.namespaces',
    change: ({ linux }) => {
      linux.namespaces = linux.namespaces.filter(({ type }) => type !== 'ipc');
    },
    fate: { refused: another('namespaces') },
  },
  {
    title: 'another environment',
    field: 'process.env',
    change: ({ process }) => {
      process.env.push('NEW=1');
    },
    fate: { irrelevant: 'a program has its environment since it was started, and goes on with it' },
  },
  {
    title: 'an annotation',
    field: 'annotations',
    change: (config) => {
      config.annotations = { 'org.example': 'new' };
    },
    fate: { irrelevant: "it is for the engine's eyes" },
  },
  {
    title: 'another path of its cgroup',
    field: 'linux.cgroupsPath',
    change: ({ linux }) => {
      linux.cgroupsPath = `${linux.cgroupsPath}-new`;
    },
    fate: {
      inForce: ({ pid, job }) => expect(statusOf(pid, 'cgroup')).toContain(`/${job.id}-new\n`),
    },
  },
];

/** Fields that no row changes, and why none has to. */
const others: Record<string, string> = {
  ociVersion: 'says how the rest is written',
  'process.terminal': 'another one is another container: its streams are others',
  'root.path': 'every container has its own',
  hooks: "runc calls those of a create; a restore has the container's engine call its own",
};

describe.skipIf(requireRealStack().skip)(
  'a job that is restored into a container of another definition',
  () => {
    let stack: Stack;
    let runc: DirectRunc;
    let template: Template;

    beforeAll(async () => {
      stack = await startStack({ rootJobsOnly: true });
      runc = await directRunc(stack);
      const job = await create('origin', () => {});
      await job.run(['start']);
      await job.countsOn(2);
      expect(await job.checkpoint([])).toMatchObject({ exitCode: 0 });
      template = { images: job.images, last: job.ticks.length };
    });
    afterAll(() => stack?.stop());
    beforeEach(() => onTestFailed(() => console.log(stack.logs())));

    async function create(id: string, change: (config: Config) => void, from?: Template): Promise<CrashJob> {
      const job = await CrashJob.make(stack, runc, id);
      const file = join(job.bundle, 'config.json');
      const config = JSON.parse(readFileSync(file, 'utf8')) as Config;
      Object.assign(config.process, {
        ...{ noNewPrivileges: false, oomScoreAdj: 100 },
        args: ['sh', '-c', `ulimit -Su 40; ${counting[2]}`],
        rlimits: [{ type: 'RLIMIT_NPROC', soft: 4000, hard: 4000 }],
      });
      change(config);
      writeFileSync(file, JSON.stringify(config));
      if (from) job.takeImage(from);
      expect(await job.begin('create').status(), job.call?.output()).toBe(0);
      return job;
    }

    test.each(rows.map((row, i) => ({ ...row, id: `row-${i}` })))(
      '$title ($field)',
      async ({ id, change, fate }) => {
        const job = await create(id, change, template);
        // What is in force is so before the job's first instruction.
        if ('inForce' in fate) await fate.inForce({ pid: (await runc.state(id)).pid, job });
        await job.start();
        await job.countsOn(1);
        expect(job.ticks[0], job.warnings().join()).toBe('refused' in fate ? 1 : template.last + 1);
        if ('refused' in fate) expect(job.warnings().join()).toMatch(fate.refused);
        await job.run(['delete', '--force']);
        expect(await job.leftovers()).toEqual([]);
      },
    );

    test('no field that runc or containerd writes into a definition is forgotten here', async () => {
      const image = await busyboxImage(stack);
      const container = await ctrEngine(stack).run({ id: 'fields', image, args: counting });
      const bundles = join(stack.dir, 'state');
      const files = [join(runc.bundles, 'origin', 'config.json'), ...configsBelow(bundles)];
      const found = files.flatMap((file) => fieldsOf(JSON.parse(readFileSync(file, 'utf8')) as object));
      await container.remove();
      expect(files.length).toBeGreaterThan(1);
      const known = new Set([...rows.map(({ field }) => field), ...Object.keys(others)]);
      expect(found.filter((field) => !known.has(field))).toEqual([]);
    });
  },
);

/** The fields of a definition, those of its parts by the part's name and their own. */
const fieldsOf = (config: object): string[] =>
  Object.entries(config).flatMap(([name, value]) =>
    ['process', 'linux'].includes(name) ? Object.keys(value).map((inner) => `${name}.${inner}`) : [name],
  );

const configsBelow = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('/config.json'))
    .map((path) => join(directory, path));
