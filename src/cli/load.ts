import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Script } from 'node:vm';

/** The program's last line (scripts/build.mjs): what the program is known by, and its compiled form with it. */
const markLength = '//# build \n'.length + 64;

/**
 * Where V8's compiled form of a program is kept: V8's own bytes, and the program's mark. A checkpoint needs twice as
 * much of it as the other commands do, and those should not have to read that.
 */
const compiledOf = (program: string, command: string | undefined): string =>
  `${program}.${command === 'checkpoint' ? command : 'others'}.compiled`;

/** What a program exports: its commands begin here. */
export type Program = { main(argv: readonly string[]): Promise<void> };

export interface LoadOptions {
  /** runc's command that the program is loaded for. */
  readonly command?: string | undefined;
  /** Whether what has been compiled by the end of the process is kept for the next ones, as well as what was there. */
  readonly keep?: boolean;
}

/**
 * Loads a program with V8's compiled form of it, where there is one of this very program, made by this very V8.
 *
 * @param program the path of a CommonJS file that ends with its mark.
 * @throws whatever loading throws: the file system's own error, or a SyntaxError of a program that is cut short.
 */
export function load(program: string, { command, keep = false }: LoadOptions = {}): Program {
  const { script, mark } = compile(program, command);
  if (keep) process.once('exit', () => writeCompiled(compiledOf(program, command), script, mark));
  const module: { exports: unknown } = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(program), module);
  return module.exports as Program;
}

/**
 * Reads a program, compiled where it is kept so.
 *
 * Node's own compile cache holds what has been compiled when a module is loaded (node/src/compile_cache.cc), and nearly
 * all of this program is when it is called. V8 compares of a source its length alone (SerializedCodeData::SourceHash),
 * hence the mark.
 */
export function compile(
  program: string,
  command?: string,
): { readonly script: Script; readonly mark: string } {
  // esbuild writes nothing but ASCII.
  const source = readFileSync(program, 'latin1');
  const mark = source.slice(-markLength);
  const compiled = readCompiled(compiledOf(program, command), mark);
  const script = new Script(`(function (exports, require, module) {${source}})`, {
    filename: program,
    ...(compiled ? { cachedData: compiled } : {}),
  });
  return { script, mark };
}

function readCompiled(path: string, mark: string): Buffer | undefined {
  try {
    const kept = readFileSync(path);
    const end = kept.length - markLength;
    return kept.toString('latin1', Math.max(0, end)) === mark ? kept.subarray(0, end) : undefined;
  } catch {
    return undefined;
  }
}

function writeCompiled(path: string, script: Script, mark: string): void {
  const draft = `${path}.draft`;
  writeFileSync(draft, Buffer.concat([script.createCachedData(), Buffer.from(mark, 'latin1')]));
  renameSync(draft, path);
}
