import { createHash } from 'node:crypto';
import { canonicalJson } from './canonical-json.ts';
import type { ContainerShape } from './container-config.ts';

/** A short name for everything in a shape: equal shapes have equal fingerprints, whichever engine wrote them. */
export function fingerprintOf(shape: ContainerShape): string {
  return createHash('sha256').update(canonicalJson(shape)).digest('hex');
}
