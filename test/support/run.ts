import { execa } from 'execa';

export type RunOptions = {
  /** Return a failed command's result instead of throwing. */
  mayFail?: boolean;
  env?: Record<string, string>;
  cwd?: string;
  input?: string;
  timeoutMs?: number;
};

/** What a finished command said. */
export type Ran = {
  command: string;
  exitCode: number;
  stdout: string;
  stderr: string;
  ms: number;
};

/** Runs one command to its end, with exactly the environment given (else this process's). */
export async function run(file: string, args: string[], options: RunOptions = {}): Promise<Ran> {
  const began = performance.now();
  const result = await execa(file, args, {
    reject: false,
    timeout: options.timeoutMs ?? 120_000,
    ...(options.env ? { env: options.env, extendEnv: false } : {}),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.input === undefined ? { stdin: 'ignore' } : { input: options.input }),
  });
  const ran: Ran = {
    command: [file, ...args].join(' '),
    exitCode: result.exitCode ?? -1,
    stdout: result.stdout,
    // That a program could not be started, took too long or was ended by a signal, only execa's message says.
    stderr:
      result.exitCode === undefined || result.timedOut
        ? `${result.stderr}\n${result.shortMessage}`
        : result.stderr,
    ms: performance.now() - began,
  };
  if (ran.exitCode !== 0 && !options.mayFail) {
    const said = `${ran.stderr}\n${ran.stdout}`.trim().split('\n').slice(-30).join('\n');
    throw new Error(`exit status ${ran.exitCode} from: ${ran.command}\n${said}`);
  }
  return ran;
}
