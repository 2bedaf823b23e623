/** One line of a chart: milliseconds over how much there is of something. */
export type Line = { name: string; points: [size: number, ms: number][]; kind: 'measured' | 'limit' };

export type Chart = { title: string; sizes: string; lines: Line[] };

const width = 720;
const height = 400;
const plot = { left: 64, right: 500, top: 40, bottom: 350 };
const colours = ['#8a8a8a', '#c2410c', '#4b7bb5', '#15803d', '#7c3aed', '#b45309', '#0f766e'];

/**
 * A chart as SVG, both axes logarithmic: what takes twice the time for twice the size is a line of the same slope
 * everywhere. Limits are dashed. The same lines give the same bytes.
 */
export function svgOf({ title, sizes, lines }: Chart): string {
  const points = lines.flatMap((line) => line.points);
  if (points.length === 0) throw new Error(`found nothing to draw for ${title}, expected a point at least`);
  const x = axis(
    points.map(([size]) => size),
    plot.left,
    plot.right,
  );
  const y = axis(
    points.map(([, ms]) => ms),
    plot.bottom,
    plot.top,
  );
  const labels = spreadOut(lines.map(({ points }) => y.at(points.at(-1)?.[1] ?? 1)));
  const drawn = lines.map((line, i) => drawLine(line, i, x.at, y.at, labels[i] as number));
  const grid = [
    ...x.ticks.map((tick) => `<path class="grid" d="M${px(x.at(tick))} ${plot.top}V${plot.bottom}"/>`),
    ...x.ticks.map((tick) => text(x.at(tick), plot.bottom + 18, short(tick), 'middle')),
    ...y.ticks.map((tick) => `<path class="grid" d="M${plot.left} ${px(y.at(tick))}H${plot.right}"/>`),
    ...y.ticks.map((tick) => text(plot.left - 8, y.at(tick) + 4, timeOf(tick), 'end')),
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)}">`,
    '<style>text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.line{fill:none;stroke-width:2}.limit{stroke-dasharray:5 4}</style>',
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="${plot.left}" y="22" style="font-weight:bold">${escaped(title)}</text>`,
    ...grid,
    text((plot.left + plot.right) / 2, height - 10, sizes, 'middle'),
    ...drawn,
    '</svg>\n',
  ].join('\n');
}

function drawLine({ name, points, kind }: Line, i: number, x: Scale, y: Scale, label: number): string {
  const colour = colours[i % colours.length];
  const places = points.map(([size, ms]) => `${px(x(size))} ${px(y(ms))}`);
  const [endX, endY] = (places.at(-1) ?? '0 0').split(' ');
  const dots = places
    .map((place) => place.split(' '))
    .map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}"/>`);
  return [
    `<path class="line${kind === 'limit' ? ' limit' : ''}" stroke="${colour}" d="M${places.join('L')}"/>`,
    ...(kind === 'measured' ? dots : []),
    `<path d="M${endX} ${endY}L${plot.right + 12} ${px(label)}" stroke="${colour}" stroke-width="0.5"/>`,
    text(plot.right + 16, label + 4, name, 'start'),
  ].join('\n');
}

type Scale = (value: number) => number;

/** A logarithmic axis between two places, with a tick for each power of ten and, where there are few, for 2 and 5. */
function axis(values: readonly number[], from: number, to: number): { at: Scale; ticks: number[] } {
  const least = Math.min(...values);
  const most = Math.max(...values, least * 2);
  const powers = Math.log10(most / least);
  const at = (value: number): number => from + ((to - from) * Math.log10(value / least)) / powers;
  const steps = powers > 3 ? [1] : [1, 2, 5];
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power++) {
    for (const step of steps) {
      const tick = Number((step * 10 ** power).toPrecision(1));
      if (tick >= least * 0.999 && tick <= most * 1.001) ticks.push(tick);
    }
  }
  return { at, ticks };
}

/** Places for labels that do not cover each other, as near to those wanted as their order allows. */
function spreadOut(wanted: readonly number[]): number[] {
  const order = wanted.map((_, i) => i).sort((a, b) => (wanted[a] as number) - (wanted[b] as number));
  const places = [...wanted];
  let last = plot.top - 16;
  for (const i of order) {
    last = Math.max(last + 16, wanted[i] as number);
    places[i] = last;
  }
  return places;
}

const px = (value: number): string => value.toFixed(1);
const escaped = (words: string): string => words.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const short = (value: number): string => value.toLocaleString('en');
const timeOf = (ms: number): string => (ms >= 1000 ? `${short(ms / 1000)} s` : `${short(ms)} ms`);
const text = (x: number, y: number, words: string, anchor: string): string =>
  `<text x="${px(x)}" y="${px(y)}" text-anchor="${anchor}">${escaped(words)}</text>`;
