/** A state for people. */
export interface StateWords {
  /** Such as `running` or `checkpointing`. */
  readonly state: string;
  /** Such as `dumping` or `rolling back, removing leftovers`; null where the state has no steps. */
  readonly step: string | null;
  /** What the state's name does not say; null where it says everything. */
  readonly note: string | null;
}

const notes: Readonly<Record<string, string>> = {
  new: 'no command has been carried out',
  'alive.created': 'waits for start',
  'alive.restored': 'held as it was dumped, waits for start',
  'alive.checkpointed': 'the job was ended and its image carries it on',
  'alive.rolledBack': 'the restore failed and was undone: the container is created from scratch',
  'alive.adopting': "runs the caller's own restore",
};

/**
 * Puts a state's path into words.
 *
 * @param path such as `alive.creating.fromScratch`.
 * @param step a child machine's state, such as `rollingBack.tidying`.
 */
export function wordsFor(path: string, step: string | undefined): StateWords {
  const [first = '', ...rest] = path.replace(/^alive\./, '').split('.');
  const steps = [...rest, ...(step?.split('.') ?? [])].map(spaced);
  return { state: spaced(first), step: steps.join(', ') || null, note: notes[path] ?? null };
}

/** `rollingBack` → `rolling back`. */
const spaced = (name: string): string => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
