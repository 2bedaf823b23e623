import fs from 'node:fs';
import { findCurrentImage } from '../../actions/image-store.ts';
import { readManifest } from '../../actions/manifest.ts';
import { reasonOf } from '../../actions/problem.ts';
import type { StateRecord } from '../../actions/state-file.ts';
import type { ImagePlace } from '../../machines/vocabulary.ts';

/** The image that a container was restored from, or that its last checkpoint made. */
export interface ImageReport {
  readonly generation: number;
  readonly directory: string;
  /** Whether the directory is there. */
  readonly exists: boolean;
  /** Whether `current` names it, so that the job's next container is restored from it. */
  readonly isCurrent: boolean;
  /** The generation that `current` names. */
  readonly currentGeneration: number | null;
  /** RFC 3339. This and the two below come from the manifest: null where that cannot be read. */
  readonly createdAt: string | null;
  /** The size of all files but the manifest. */
  readonly bytes: number | null;
  /** How many files there are, the manifest not counted. */
  readonly files: number | null;
  /** Why the manifest, or `current`, cannot be read. */
  readonly problem: string | null;
}

/** Says what an image is, from its manifest: no file of it is hashed, and none is changed. Throws nothing. */
export function reportImage(state: Pick<StateRecord, 'imageRoot' | 'key'>, image: ImagePlace): ImageReport {
  const exists = fs.existsSync(image.directory);
  const current = attempt(() => findCurrentImage(state)?.generation);
  const manifest = exists ? attempt(() => readManifest(image.directory)) : {};
  const sizes = manifest.value && Object.values(manifest.value.files).map(({ bytes }) => bytes);
  return {
    generation: image.generation,
    directory: image.directory,
    exists,
    isCurrent: exists && current.value === image.generation,
    currentGeneration: current.value ?? null,
    createdAt: manifest.value?.createdAt ?? null,
    bytes: sizes?.reduce((sum, bytes) => sum + bytes, 0) ?? null,
    files: sizes?.length ?? null,
    problem: manifest.problem ?? current.problem ?? null,
  };
}

function attempt<Value>(action: () => Value): { readonly value?: Value; readonly problem?: string } {
  try {
    return { value: action() };
  } catch (error) {
    return { problem: reasonOf(error) };
  }
}
