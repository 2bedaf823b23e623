import { createHash } from 'node:crypto';
import { canonicalJson } from './canonical-json.ts';
import type { ContainerShape } from './container-config.ts';

/** A short name for everything in a shape: equal shapes have equal fingerprints, whichever engine wrote them. */
export function fingerprintOf(shape: ContainerShape): string {
  return createHash('sha256').update(canonicalJson(shape)).digest('hex');
}

/** The fields in which two shapes differ, by their names. */
export const differencesBetween = (one: ContainerShape, other: ContainerShape): string[] =>
  (Object.keys(other) as (keyof ContainerShape)[]).filter(
    (name) => canonicalJson(one[name]) !== canonicalJson(other[name]),
  );
