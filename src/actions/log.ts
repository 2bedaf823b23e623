import fs from 'node:fs';
import { dirname } from 'node:path';
import { type DestinationStream, type Logger, pino } from 'pino';

/**
 * The host's log: one JSON object a line, with `level` as a word and an RFC 3339 `time`, appended at once (a
 * wrapper may be killed at any line). Where the file cannot be written the log is silent: a full disk must not
 * cost anybody a container.
 */
export function openLog(file: string, bindings: Record<string, unknown>): Logger {
  try {
    fs.mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    return pino(
      {
        base: null,
        timestamp: pino.stdTimeFunctions.isoTime,
        formatters: { level: (label) => ({ level: label }) },
      },
      appendingTo(fs.openSync(file, 'a', 0o600)),
    ).child(bindings);
  } catch {
    return pino({ enabled: false }, { write: () => {} });
  }
}

/**
 * A destination that appends a line in one write(2), so that those of two hundred wrappers do not mix, and loses it
 * where it cannot be written. pino's own does more, and what that needs of Node takes a few milliseconds to load (scripts/build.mjs).
 */
const appendingTo = (fd: number): DestinationStream => ({
  write(line) {
    try {
      fs.writeSync(fd, line);
    } catch {
      // A full disk must not cost anybody a container.
    }
  },
});

/**
 * Appends one line to the log file that the caller named with runc's `--log`, in runc's own form.
 *
 * containerd's shim shows the last line whose level is `error` (go-runc, `getLastRuntimeError`); so what did not
 * fail the command is a warning.
 */
export function appendToRuncLog(
  log: { readonly file: string; readonly format: string } | undefined,
  level: 'warning' | 'error',
  message: string,
): void {
  if (!log) return;
  const time = new Date().toISOString();
  const line =
    log.format === 'json'
      ? JSON.stringify({ level, msg: message, time })
      : `time=${JSON.stringify(time)} level=${level} msg=${JSON.stringify(message)}`;
  try {
    fs.appendFileSync(log.file, `${line}\n`, { mode: 0o644 });
  } catch {
    // The caller's log is a courtesy; Tardis has its own.
  }
}
