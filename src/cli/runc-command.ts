import {
  type FlagSpec,
  flagNamed,
  globalFlags,
  type SubcommandName,
  subcommandNamed,
  subcommands,
} from './runc-flags.ts';

/** One use of a flag on a command line. */
export interface FlagUse {
  /** The canonical long name, without dashes. */
  readonly name: string;
  readonly value: string | boolean;
  /** The argv words it came from, verbatim: one, or two when the value is a word of its own. */
  readonly words: readonly string[];
}

/** A run of argv words that belong together; the pieces in order are the whole argv. */
export interface Piece {
  readonly role: 'global' | 'command' | 'flag' | 'positional' | 'terminator' | 'unread';
  readonly words: readonly string[];
}

/** A runc command line as runc would read it. */
export interface RuncCommand {
  readonly argv: readonly string[];
  readonly globals: readonly FlagUse[];
  /** Undefined when runc would run no subcommand (`--version`), and when the line is not understood. */
  readonly name: SubcommandName | undefined;
  readonly flags: readonly FlagUse[];
  /** Verbatim, with everything after `--`. */
  readonly positionals: readonly string[];
  readonly pieces: readonly Piece[];
  /** False when this line must go to the real runc untouched; then the lists hold what was read before the doubt. */
  readonly understood: boolean;
  /** Why the line is not understood: the word found and what was expected. */
  readonly reason?: string;
}

/**
 * Reads a runc command line (without the program's own name); never throws.
 *
 * A line counts as understood only if every runc from 1.1 to 1.3 that knows its flags reads it so. An unknown
 * command or flag ends the reading there and then, because nobody knows whether a value follows it. Numbers and
 * durations are not judged: runc refuses bad ones itself.
 *
 * @example
 * parseRuncCommand(['--root', '/run/runc', 'kill', 'web', '9']).positionals; // ['web', '9']
 */
export function parseRuncCommand(argv: readonly string[]): RuncCommand {
  const before = readFlags(argv, { flags: globalFlags, stopsAtFirstPositional: true, owner: 'runc' });
  const globals = before.flags;
  const globalPieces = before.pieces.map((piece) => (piece.role === 'flag' ? asGlobal(piece) : piece));
  const rest = argv.slice(before.next);
  const soFar = { argv: [...argv], globals, name: undefined, flags: [], positionals: [] };

  const noSubcommand = lastValue(globals, 'help') === true || lastValue(globals, 'version') === true;
  const [word] = rest;
  if (before.reason !== undefined || noSubcommand || word === undefined) {
    return { ...soFar, pieces: [...globalPieces, ...unread(rest)], ...verdict(before.reason) };
  }
  const name = subcommandNamed(word);
  if (name === undefined) {
    const reason = `found ${quoted(word)}, expected one of runc's commands`;
    return { ...soFar, pieces: [...globalPieces, ...unread(rest)], ...verdict(reason) };
  }

  const words = rest.slice(1);
  const spec = subcommands[name];
  const after = readFlags(words, { ...spec, owner: `runc ${name}` });
  const trailing = words.slice(after.next);
  const trailingPieces = after.reason === undefined ? trailing.map(positional) : unread(trailing);
  return {
    ...soFar,
    name: after.reason === undefined ? name : undefined,
    flags: after.flags,
    positionals: after.reason === undefined ? [...after.positionals, ...trailing] : after.positionals,
    pieces: [...globalPieces, { role: 'command', words: [word] }, ...after.pieces, ...trailingPieces],
    ...verdict(after.reason),
  };
}

/** The argv that a command was parsed from, put together again from its pieces. */
export function renderRuncCommand(command: RuncCommand): string[] {
  return command.pieces.flatMap((piece) => piece.words);
}

/** The value of a command's flag; the last use wins, as in Go's flag package. */
export function flagValue(command: RuncCommand, name: string): string | undefined {
  return asString(lastValue(command.flags, name));
}

/** Whether a command's boolean flag is on; the last use wins, and `--x=false` is off. */
export function flagSet(command: RuncCommand, name: string): boolean {
  return lastValue(command.flags, name) === true;
}

/** The value of a global flag; the last use wins. */
export function globalValue(command: RuncCommand, name: string): string | undefined {
  return asString(lastValue(command.globals, name));
}

/** Whether a global boolean flag is on; the last use wins. */
export function globalSet(command: RuncCommand, name: string): boolean {
  return lastValue(command.globals, name) === true;
}

/**
 * The container that runc would act on: the first positional of a subcommand that takes an id.
 *
 * Undefined for an empty id, for a line that is not understood, and under `--help`, where runc acts on nothing.
 */
export function containerId(command: RuncCommand): string | undefined {
  if (command.name === undefined || !subcommands[command.name].takesId) return undefined;
  if (flagSet(command, 'help')) return undefined;
  return command.positionals[0] || undefined;
}

interface Grammar {
  readonly flags: readonly FlagSpec[];
  readonly stopsAtFirstPositional: boolean;
  /** Who has these flags, for messages. */
  readonly owner: string;
}

interface Reading {
  readonly flags: readonly FlagUse[];
  readonly positionals: readonly string[];
  readonly pieces: readonly Piece[];
  /** The index of the first word that was not read. */
  readonly next: number;
  readonly reason?: string;
}

/*
 * Go's flag package stops at the first positional. Before it comes to that, urfave/cli v1 moves the flags of most
 * commands to the front (reorderArgs in its command.go, read in v1.22.9 and v1.22.17), so that `delete ID --force`
 * works. It takes the word after any flag without `=` along, even after a boolean one; a word that it should have
 * left behind then ends the flags early or changes places with the id. Seen with runc 1.1.5 and 1.3.6:
 * `create --no-pivot ID --bundle B` is refused, `kill ID --all 9` looks for a container named 9. Nor does every
 * v1.22 treat a `--` after a positional alike. Lines of these shapes are not understood here.
 */
function readFlags(words: readonly string[], grammar: Grammar): Reading {
  const flags: FlagUse[] = [];
  const positionals: string[] = [];
  const pieces: Piece[] = [];
  const spellings = new Map<string, string>();
  let at = 0;
  // Whether reorderArgs would take the next word along with the flag before it.
  let takenAlong = false;

  const result = (reason?: string): Reading => {
    const reading = { flags, positionals, pieces, next: at };
    return reason === undefined ? reading : { ...reading, reason };
  };

  for (let word = words[at]; word !== undefined; word = words[at]) {
    const terminator = word === '--';
    if (startsLikeFlag(word) && !terminator) {
      const read = readFlag(word, words[at + 1], grammar);
      if ('reason' in read) return result(read.reason);
      const { use, spelling } = read;
      const earlier = spellings.get(use.name) ?? spelling;
      if (earlier !== spelling) {
        // normalizeFlags in urfave/cli's context.go: "Cannot use two forms of the same flag".
        return result(
          `found ${quoted(word)} after the same flag as -${earlier}, expected only one form of it`,
        );
      }
      spellings.set(use.name, spelling);
      flags.push(use);
      pieces.push({ role: 'flag', words: use.words });
      at += use.words.length;
      const last = use.words.at(-1) ?? '';
      takenAlong = startsLikeFlag(last) && !last.includes('=');
      continue;
    }

    if (grammar.stopsAtFirstPositional && !terminator) break;
    if (!grammar.stopsAtFirstPositional) {
      const changesPlaces = positionals.length > 0 && (takenAlong || terminator);
      const endsFlagsEarly = takenAlong && words.slice(at + 1).some(startsLikeFlag);
      if (changesPlaces || endsFlagsEarly) {
        return result(
          `found ${quoted(word)} where runc does not read it as written, expected every flag before the id`,
        );
      }
    }
    takenAlong = false;
    at += 1;
    pieces.push({ role: terminator ? 'terminator' : 'positional', words: [word] });
    if (terminator) break;
    positionals.push(word);
  }
  return result();
}

/** Reads one flag as parseOne of Go's flag package does; `following` is the word that would be its value. */
function readFlag(
  word: string,
  following: string | undefined,
  grammar: Grammar,
): { readonly use: FlagUse; readonly spelling: string } | { readonly reason: string } {
  const [, spelling, inline] = /^--?([^-=][^=]*)(?:=(.*))?$/s.exec(word) ?? [];
  const spec = spelling === undefined ? undefined : flagNamed(grammar.flags, spelling);
  if (spelling === undefined || spec === undefined) {
    return { reason: `found ${quoted(word)}, expected a flag that ${grammar.owner} has` };
  }
  const [name] = spec.names;
  if (spec.takesValue) {
    if (inline !== undefined) return { use: { name, value: inline, words: [word] }, spelling };
    if (following !== undefined)
      return { use: { name, value: following, words: [word, following] }, spelling };
    return { reason: `found ${quoted(word)} as the last word, expected its value after it` };
  }
  const value = inline === undefined ? true : goBooleans.get(inline);
  if (value === undefined) {
    return {
      reason: `found ${quoted(word)}, expected one of ${[...goBooleans.keys()].join(', ')} after the =`,
    };
  }
  return { use: { name, value, words: [word] }, spelling };
}

/** The words that Go's strconv.ParseBool accepts. */
const goBooleans: ReadonlyMap<string, boolean> = new Map([
  ...['1', 't', 'T', 'true', 'TRUE', 'True'].map((word) => [word, true] as const),
  ...['0', 'f', 'F', 'false', 'FALSE', 'False'].map((word) => [word, false] as const),
]);

function startsLikeFlag(word: string): boolean {
  return word.startsWith('-') && word !== '-';
}

function lastValue(uses: readonly FlagUse[], name: string): string | boolean | undefined {
  return uses.findLast((use) => use.name === name)?.value;
}

function asString(value: string | boolean | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function asGlobal(piece: Piece): Piece {
  return { role: 'global', words: piece.words };
}

function positional(word: string): Piece {
  return { role: 'positional', words: [word] };
}

function unread(words: readonly string[]): Piece[] {
  return words.length === 0 ? [] : [{ role: 'unread', words }];
}

function verdict(reason: string | undefined): { understood: boolean; reason?: string } {
  return reason === undefined ? { understood: true } : { understood: false, reason };
}

/** A word as it may stand in a one-line message, whatever it holds. */
function quoted(word: string): string {
  return JSON.stringify(word);
}
