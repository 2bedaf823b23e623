import type { HistoryEntry } from '../../actions/state-file.ts';
import type { NextEvent } from '../../machines/next-events.ts';
import type { ImageReport } from './image-report.ts';
import type { LifeReport } from './life-report.ts';
import type { Report } from './report.ts';

/**
 * Lays a report out for a terminal: aligned, without colours, a line end after the last line.
 *
 * @param now milliseconds since the epoch, for "3 min ago".
 */
export function textOf(report: Report, now: number): string {
  const rows: [string, ...string[]][] = [
    ['Container', report.id],
    ['Key', report.key],
    ['Bundle', report.bundle],
    ['runc root', report.root],
    ['State', ...stateLines(report)],
    ['Written', `${report.writtenAt} (${spanOf(now - Date.parse(report.writtenAt))} ago)`],
    ['Failure', report.failure ? `${oneLine(report.failure.message)} (${report.failure.code})` : 'none'],
    ['Life', lifeLine(report.life)],
    ['Image', ...(report.image ? imageLines(report.image) : ['none'])],
    ['Next', nextLine(report)],
    ['History', historyLine(report)],
  ];
  const lines = rows.flatMap(([label, ...values]) =>
    values.map((value, index) => `${(index === 0 ? label : '').padEnd(11)}${value}`),
  );
  return `${[...lines, ...historyTable(report.history)].map(harmless).join('\n')}\n`;
}

function stateLines({ words, inTheMiddle, unfinishedImage }: Report): string[] {
  const step = words.step === null ? '' : `, in the step "${words.step}"`;
  const note = words.note === null ? '' : ` (${words.note})`;
  return [
    `${words.state}${step}${note}`,
    ...(inTheMiddle ? ['in the middle of it: a wrapper is at work, or it died here'] : []),
    ...(unfinishedImage
      ? [`unfinished image: generation ${unfinishedImage.generation}, ${unfinishedImage.directory}.partial`]
      : []),
  ];
}

function lifeLine(life: LifeReport | null): string {
  if (!life) return 'not decided: the first checkpoint decides';
  if (life.epoch === null) return `none: ${oneLine(life.refused ?? 'unknown')}`;
  const later = life.latestEpoch !== null && life.latestEpoch > life.epoch;
  return later
    ? `epoch ${life.epoch}, superseded by epoch ${life.latestEpoch}: its checkpoints are refused`
    : `epoch ${life.epoch}`;
}

function imageLines(image: ImageReport): string[] {
  const { generation, directory, exists, isCurrent, currentGeneration, createdAt, bytes, files, problem } =
    image;
  const others = currentGeneration === null ? 'there is no current one' : `current is ${currentGeneration}`;
  const standing = isCurrent ? 'current' : `not current: ${others}`;
  return [
    `generation ${generation}, ${exists ? standing : `missing (${others})`}`,
    directory,
    ...(bytes === null ? [] : [`${sizeOf(bytes)} in ${files} files, created ${createdAt}`]),
    ...(problem === null ? [] : [oneLine(problem)]),
  ];
}

function nextLine({ next, inTheMiddle }: Report): string {
  const commands = next.filter(({ event }) => event !== 'OBSERVED').map(({ event }) => event.toLowerCase());
  if (inTheMiddle) {
    return 'whatever command comes next, the step is undone or finished first, if the wrapper died';
  }
  const words = commands.join(', ') || 'nothing';
  const observed = observedIn(next);
  return observed.length > 0 ? `${words}; or runc reports it ${observed.join(' or ')}` : words;
}

const observedIn = (next: readonly NextEvent[]): string[] =>
  next.filter(({ event }) => event === 'OBSERVED').flatMap(({ to }) => to.map(leafOf));

const leafOf = (path: string): string => path.split('.').at(-1) ?? path;

function historyLine({ history, historyLeftOut }: Report): string {
  const all = history.length + historyLeftOut;
  if (all === 0) return 'empty';
  if (historyLeftOut === 0) return `${all} entries, the latest last`;
  return `the latest ${history.length} of ${all} entries; ${historyLeftOut} left out (--history ${all} shows them)`;
}

function historyTable(history: readonly HistoryEntry[]): string[] {
  if (history.length === 0) return [];
  const rows = [
    { at: 'TIME', event: 'EVENT', from: 'FROM', arrow: ' ', to: 'TO', ms: 'MS' },
    ...history.map(({ at, event, from, to, ms }) => ({
      ...{ at, event, arrow: '→' },
      ...{ from: shortPath(from), to: shortPath(to), ms: ms.toFixed(1) },
    })),
  ];
  const width = (column: 'at' | 'event' | 'from' | 'to' | 'ms') =>
    Math.max(...rows.map((row) => row[column].length));
  const [at, event, from, to, ms] = [width('at'), width('event'), width('from'), width('to'), width('ms')];
  return rows.map((row) =>
    [
      `  ${row.at.padEnd(at)}`,
      row.event.padEnd(event),
      `${row.from.padEnd(from)} ${row.arrow} ${row.to.padEnd(to)}`,
      row.ms.padStart(ms),
    ].join('  '),
  );
}

/** `alive` is where nearly everything happens: it says nothing in a table. */
const shortPath = (path: string): string => path.replace(/^alive\./, '');

/** `12345678` → `11.8 MiB (12345678 bytes)`. */
export function sizeOf(bytes: number): string {
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let [value, unit] = [bytes, ''];
  for (const larger of units) {
    if (value < 1024) break;
    [value, unit] = [value / 1024, larger];
  }
  return unit === '' ? `${bytes} bytes` : `${value.toFixed(1)} ${unit} (${bytes} bytes)`;
}

/** A span of milliseconds as one number; a clock that was set back makes none. */
export function spanOf(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

const oneLine = (text: string): string => text.replace(/\s*\n\s*/g, '; ').trim();

/** What a file holds must not steer the operator's terminal. */
export const harmless = (line: string): string => line.replace(/\p{Cc}/gu, '?');
