/** What repeated measurements of one quantity came to, in its own unit. */
export type Spread = {
  runs: number;
  median: number;
  /** The first and the third quartile: half of all runs lie between them. */
  q1: number;
  q3: number;
  least: number;
  most: number;
};

/** @throws RangeError for an empty list. */
export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError('found no measurement, expected one at least');
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number): number => {
    const place = (sorted.length - 1) * part;
    const [below, above] = [sorted[Math.floor(place)] as number, sorted[Math.ceil(place)] as number];
    return below + (above - below) * (place - Math.floor(place));
  };
  return { runs: sorted.length, median: at(0.5), q1: at(0.25), q3: at(0.75), least: at(0), most: at(1) };
}
