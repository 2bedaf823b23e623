import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  containerId,
  flagSet,
  flagValue,
  globalSet,
  globalValue,
  parseRuncCommand,
  renderRuncCommand,
} from '../../src/cli/runc-command.ts';
import { type FlagSpec, globalFlags, type SubcommandName, subcommands } from '../../src/cli/runc-flags.ts';

const names = Object.keys(subcommands) as SubcommandName[];
const everyFlag = [...globalFlags, ...names.flatMap((name) => subcommands[name].flags)];
const booleans = {
  true: ['1', 't', 'T', 'true', 'TRUE', 'True'],
  false: ['0', 'f', 'F', 'false', 'FALSE', 'False'],
};

/** Any string at all, lone surrogates included, with a leaning to what looks like a command line. */
const anyWord = fc.oneof(
  fc.string(),
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)) }),
  fc.constantFrom('', '-', '--', '---', '-=', '--=', '--=x', '---x', '-x', '\n', '=', '--\n=\n', '__proto__'),
  fc.constantFrom(...names, 'h', 'job'),
  fc
    .tuple(
      fc.constantFrom('-', '--', '---'),
      fc.constantFrom(...everyFlag.flatMap((flag) => flag.names)),
      fc.constantFrom('', '=', '=true', '=0', '=x'),
    )
    .map((parts) => parts.join('')),
);

interface IntendedFlag {
  readonly name: string;
  readonly value: string | boolean;
  readonly words: string[];
}

/** A flag in one of its forms; `pick` chooses the spelling, one for the whole line as runc demands. */
function flagOf(flags: readonly FlagSpec[], pick: number): fc.Arbitrary<IntendedFlag> {
  const withoutHelp = flags.filter((flag) => !['help', 'version'].includes(flag.names[0]));
  return fc.constantFrom(...withoutHelp).chain((flag) => {
    const [name] = flag.names;
    const spelling = flag.names[pick % flag.names.length] ?? name;
    return fc.constantFrom('-', '--').chain((dashes): fc.Arbitrary<IntendedFlag> => {
      const word = `${dashes}${spelling}`;
      if (flag.takesValue) {
        return fc
          .tuple(anyWord, fc.boolean())
          .map(([value, inline]) => ({ name, value, words: inline ? [`${word}=${value}`] : [word, value] }));
      }
      return fc.oneof(
        fc.constant<IntendedFlag>({ name, value: true, words: [word] }),
        fc.constantFrom(...booleans.true).map((text) => ({ name, value: true, words: [`${word}=${text}`] })),
        fc
          .constantFrom(...booleans.false)
          .map((text) => ({ name, value: false, words: [`${word}=${text}`] })),
      );
    });
  });
}

const positional = anyWord.filter((word) => word === '-' || !word.startsWith('-'));

/** A valid command line and what was meant by it. */
const validLine = fc.tuple(fc.constantFrom(...names), fc.nat({ max: 1 })).chain(([name, pick]) => {
  const ownFlags = subcommands[name].flags;
  return fc.record({
    name: fc.constant(name),
    globals: fc.array(flagOf(globalFlags, pick), { maxLength: 4 }),
    flags: ownFlags.length > 1 ? fc.array(flagOf(ownFlags, pick), { maxLength: 6 }) : fc.constant([]),
    positionals: fc.array(positional, { maxLength: 3 }),
  });
});

const wordsOf = (uses: readonly IntendedFlag[]) => uses.flatMap((use) => use.words);
const lastOf = (uses: readonly IntendedFlag[]) => new Map(uses.map((use) => [use.name, use.value] as const));

describe('parseRuncCommand, on any command line', () => {
  it('should never throw, and render back to the very words it was given', () => {
    fc.assert(
      fc.property(fc.array(anyWord), (argv) => {
        const given = Object.freeze([...argv]);
        const command = parseRuncCommand(given);
        expect(renderRuncCommand(command)).toEqual(argv);
        expect(command.argv).toEqual(argv);
      }),
      { numRuns: 2_000 },
    );
  });

  it('should either understand or say why not, and act on no container that it is unsure of', () => {
    fc.assert(
      fc.property(fc.array(anyWord), (argv) => {
        const command = parseRuncCommand(argv);
        expect(command.understood).toBe(command.reason === undefined);
        if (command.understood) return;
        expect(command.name).toBeUndefined();
        expect(containerId(command)).toBeUndefined();
        expect(command.pieces.some((piece) => piece.role === 'unread')).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('parseRuncCommand, on a valid command line', () => {
  it('should find the intended values, in any form of the flags', () => {
    fc.assert(
      fc.property(validLine, ({ name, globals, flags, positionals }) => {
        const argv = [...wordsOf(globals), name, ...wordsOf(flags), ...positionals];
        const command = parseRuncCommand(argv);
        expect(command.reason).toBeUndefined();
        expect(command).toMatchObject({ name, globals, flags, positionals });
        expect(containerId(command)).toBe(
          subcommands[name].takesId ? positionals[0] || undefined : undefined,
        );
      }),
      { numRuns: 1_000 },
    );
  });

  it('should take every word after -- as a positional, whatever it looks like', () => {
    fc.assert(
      fc.property(validLine, fc.array(anyWord), ({ name, flags }, words) => {
        // Right after a bare boolean flag runc misreads `--`, so another flag stands between.
        const command = parseRuncCommand([name, ...wordsOf(flags), '--help=false', '--', ...words]);
        expect(command.reason).toBeUndefined();
        expect(command.flags.slice(0, -1)).toEqual(flags);
        expect(command.positionals).toEqual(words);
      }),
    );
  });

  it('should answer with the last use of each flag', () => {
    fc.assert(
      fc.property(validLine, ({ name, globals, flags }) => {
        const command = parseRuncCommand([...wordsOf(globals), name, ...wordsOf(flags)]);
        for (const [flag, value] of lastOf(flags)) {
          expect(flagValue(command, flag)).toBe(typeof value === 'string' ? value : undefined);
          expect(flagSet(command, flag)).toBe(value === true);
        }
        for (const [flag, value] of lastOf(globals)) {
          expect(globalValue(command, flag)).toBe(typeof value === 'string' ? value : undefined);
          expect(globalSet(command, flag)).toBe(value === true);
        }
      }),
    );
  });

  it('should find the id and the flags when all flags come after the id', () => {
    const anywhere = validLine.filter(({ name }) => !subcommands[name].stopsAtFirstPositional);
    fc.assert(
      fc.property(anywhere, positional, ({ name, flags }, id) => {
        const command = parseRuncCommand([name, id, ...wordsOf(flags)]);
        expect(command.reason).toBeUndefined();
        expect(command.flags).toEqual(flags);
        expect(command.positionals).toEqual([id]);
      }),
    );
  });

  it('should leave every word after the id of exec and ps to their commands', () => {
    fc.assert(
      fc.property(fc.constantFrom('exec', 'ps'), positional, fc.array(anyWord), (name, id, words) => {
        const command = parseRuncCommand([name, id, ...words]);
        expect(command).toMatchObject({ understood: true, flags: [], positionals: [id, ...words] });
      }),
    );
  });

  it('should stop understanding at a flag that nobody knows', () => {
    fc.assert(
      fc.property(validLine, fc.constantFrom('-', '--'), fc.boolean(), (line, dashes, before) => {
        const unknown = `${dashes}no-such-flag`;
        const own = before ? [line.name] : [line.name, ...wordsOf(line.flags), unknown];
        const argv = [...wordsOf(line.globals), ...(before ? [unknown] : []), ...own, ...line.positionals];
        const command = parseRuncCommand(argv);
        expect(command.understood).toBe(false);
        expect(command.reason).toContain(unknown);
        expect(command.globals).toEqual(line.globals);
        expect(renderRuncCommand(command)).toEqual(argv);
      }),
    );
  });
});
