/**
 * Sixteen hexadecimal digits of a text's SHA-256: a name for what has a long one, or one that is no file's. Loads node:crypto as late
 * as that: most calls need none.
 */
export const shortDigest = (text: string): string =>
  process.getBuiltinModule('node:crypto').createHash('sha256').update(text).digest('hex').slice(0, 16);
