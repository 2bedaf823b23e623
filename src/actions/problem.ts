/**
 * A failure that Tardis can explain: what was found, what was expected, and the way out, in one line.
 *
 * @example
 * throw new Problem('image-digest', `pages-1.img has SHA-256 ${found}, the manifest says ${expected}; ...`);
 */
export class Problem extends Error {
  /** A stable, lower-case word for programs to match on; the message is for people. */
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'Problem';
    this.code = code;
  }
}

/** The one line of any thrown value that a person should read. */
export function reasonOf(thrown: unknown): string {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return text.replace(/\s*\n\s*/g, '; ').trim();
}
