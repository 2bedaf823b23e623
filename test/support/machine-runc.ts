import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import type { Host } from '../../src/actions/host.ts';
import { readState, type StateRecord, stateFileOf } from '../../src/actions/state-file.ts';
import { pathOf } from '../../src/machines/paths.ts';
import type { ContainerIdentity } from '../../src/machines/vocabulary.ts';

/**
 * A runc that keeps what the state file and the freezer say while it works, fails where a file `<command>.fails`
 * says so, and dumps a job into one file.
 */
const script = `#!/bin/sh
here=\${0%/*}
while [ $# -gt 0 ]; do
  case $1 in
    create|start|pause|resume|delete|checkpoint|state) command=$1; break ;;
    --version) echo 'runc version 1.3.0'; exit 0 ;;
  esac
  shift
done
call="$here/calls/$(date +%s%N)-$command"
mkdir "$call"
cp "$here/bundle/tardis.json" "$here/freezer/cgroup.freeze" "$call/"
readlink "$here/images/job-key/current" >"$call/current"
[ "$command" != state ] || cat "$here/status.json"
[ "$command" != checkpoint ] || echo memory >"$here/images/job-key/1.partial/checkpoint/pages-1.img"
[ ! -e "$here/$command.fails" ] || { cat "$here/$command.fails" >&2; exit 3; }
`;

/** What was on disk while the fake runc did one command. */
export interface RuncSaw {
  readonly command: string;
  readonly path: string;
  readonly frozen: boolean;
  /** What \`current\` named. */
  readonly current: string;
}

/** A host directory of its own, with one container whose runc and freezer are plain files. */
export class FakeHost implements Disposable {
  readonly #home = mkdtempSync(join(tmpdir(), 'tardis-lifecycle-'));
  readonly container: ContainerIdentity = {
    id: 'job',
    root: join(this.#home, 'root'),
    bundle: join(this.#home, 'bundle'),
    key: 'job-key',
    imageRoot: join(this.#home, 'images'),
  };
  readonly host: Host = {
    config: {
      checkpointRoot: this.container.imageRoot,
      allowedRoots: [this.container.imageRoot],
      logFile: join(this.#home, 'log'),
      runDir: join(this.#home, 'run'),
      takeoverAfterSeconds: 60,
      restoreAttempts: 2,
      keep: 2,
      keepFinishedSeconds: 604_800,
      compressionLevel: 0,
      scratchDir: join(this.#home, 'scratch'),
      freezeStallSeconds: 30,
      maxFreezeSeconds: 900,
      shareTimeoutSeconds: 5,
      onUnreachable: 'scratch',
      onStricterDefinition: 'refuse',
      verifyByRestore: false,
      lockTimeoutSeconds: 600,
    },
    realRunc: join(this.#home, 'runc'),
    env: { PATH: process.env.PATH },
    openFilesLimit: undefined,
    log: pino({ enabled: false }),
  };

  constructor() {
    for (const name of ['calls', 'freezer', 'bundle/rootfs', 'root/job']) {
      mkdirSync(join(this.#home, name), { recursive: true });
    }
    writeFileSync(this.host.realRunc, script, { mode: 0o755 });
    this.#write('freezer/cgroup.freeze', '0');
    this.#write('freezer/cgroup.events', 'populated 1\nfrozen 1\n');
    this.#write('freezer/cgroup.procs', '');
    const config = { root: { path: 'rootfs' }, process: { args: ['job'] } };
    this.#write('bundle/config.json', JSON.stringify(config));
    // The job's init is this very process: somebody who is alive.
    const startTime = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]?.split(' ')[19];
    const record = {
      init_process_pid: process.pid,
      init_process_start: Number(startTime),
      cgroup_paths: { '': join(this.#home, 'freezer') },
    };
    this.#write('root/job/state.json', JSON.stringify(record));
    this.says('running');
  }

  #write(name: string, text: string): void {
    writeFileSync(join(this.#home, name), text);
  }

  /** What \`runc state\` answers from now on. */
  says(status: string): void {
    this.#write('status.json', JSON.stringify({ status }));
  }

  /** Lets a command fail from now on, or not any more. */
  fail(command: string, words: string | undefined): void {
    if (words === undefined) rmSync(join(this.#home, `${command}.fails`));
    else this.#write(`${command}.fails`, words);
  }

  /** What was on disk at each call of runc's so far; but for those of \`runc state\`. */
  saw(): RuncSaw[] {
    return this.#calls().map((call) => {
      const { snapshot } = readState(join(call, 'tardis.json'));
      return {
        command: call.split('-').at(-1) as string,
        path: pathOf(snapshot.value, snapshot),
        frozen: readFileSync(join(call, 'cgroup.freeze'), 'utf8') === '1',
        current: readFileSync(join(call, 'current'), 'utf8').trim(),
      };
    });
  }

  /** Leaves the state file as it was when a command's runc was last called: its wrapper died then. */
  dieAt(command: string): void {
    const call = this.#calls().findLast((name) => name.endsWith(`-${command}`)) as string;
    copyFileSync(join(call, 'tardis.json'), stateFileOf(this.container.bundle));
    copyFileSync(join(call, 'cgroup.freeze'), join(this.#home, 'freezer/cgroup.freeze'));
  }

  /** Rewrites the state file as if a wrapper had died in a state. */
  interrupt(value: object): void {
    const { state } = this;
    const snapshot = { ...state.snapshot, value };
    writeFileSync(stateFileOf(this.container.bundle), JSON.stringify({ ...state, snapshot }));
  }

  /** A pause as runc does it, and what \`runc state\` answers from then on. */
  freeze(): void {
    this.#write('freezer/cgroup.freeze', '1');
    this.says('paused');
  }

  /** The host on which whoever asks for the images sleeps until it is killed, with these settings. */
  outOfReach(settings: Partial<Host['config']> = {}): Host {
    mkdirSync(join(this.#home, 'bin'), { recursive: true });
    const asking = `case $* in *.tardis-asks) echo $$ >>${this.#home}/asking; exec sleep 600 ;; esac`;
    const mkdir = `#!/bin/sh\n${asking}\nPATH=\${PATH#*:}\nexec mkdir "$@"\n`;
    writeFileSync(join(this.#home, 'bin/mkdir'), mkdir, { mode: 0o755 });
    const PATH = `${join(this.#home, 'bin')}:${process.env.PATH}`;
    const config = { ...this.host.config, shareTimeoutSeconds: 0.5, ...settings };
    return { ...this.host, config, env: { PATH } };
  }

  /** The file server is back: whoever asked has an answer. */
  backInReach(): void {
    const asking = join(this.#home, 'asking');
    if (!existsSync(asking)) return;
    for (const pid of readFileSync(asking, 'utf8').split('\n').filter(Boolean)) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // It has ended.
      }
    }
    rmSync(asking);
  }

  /** Somebody lets the job run on. */
  thaw(): void {
    this.#write('freezer/cgroup.freeze', '0');
  }

  #calls(): string[] {
    const calls = join(this.#home, 'calls');
    return readdirSync(calls)
      .filter((name) => !name.endsWith('-state'))
      .sort()
      .map((name) => join(calls, name));
  }

  get state(): StateRecord {
    return readState(stateFileOf(this.container.bundle));
  }

  get path(): string {
    return pathOf(this.state.snapshot.value);
  }

  get frozen(): boolean {
    return readFileSync(join(this.#home, 'freezer/cgroup.freeze'), 'utf8') === '1';
  }

  [Symbol.dispose](): void {
    this.backInReach();
    rmSync(this.#home, { recursive: true });
  }
}
