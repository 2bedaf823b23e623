import { statSync } from 'node:fs';
import { Problem, reasonOf } from '../../actions/problem.ts';
import * as z from '../../actions/schema.ts';
import type { HistoryEntry } from '../../actions/state-file.ts';
import { containerMachine } from '../../machines/container.ts';
import { type NextEvent, nextEvents } from '../../machines/next-events.ts';
import { interruptionIn, pathOf } from '../../machines/paths.ts';
import type { Failure } from '../../machines/vocabulary.ts';
import { type ImageReport, reportImage } from './image-report.ts';
import { type LifeReport, reportLife } from './life-report.ts';
import { loadState } from './load-state.ts';
import { type StateWords, wordsFor } from './state-words.ts';

/** What `tardis inspect --format json` prints; its keys are part of Tardis's interface. */
export interface Report {
  readonly id: string;
  /** The checkpoint key: what makes two containers the same job. */
  readonly key: string;
  readonly bundle: string;
  /** runc's `--root`. */
  readonly root: string;
  /** The directory that holds the job's images, as `<key>/<generation>`. */
  readonly imageRoot: string;
  readonly stateFile: string;
  /** When the state file was last written, RFC 3339. */
  readonly writtenAt: string;
  /** The machine's state, such as `alive.running`. */
  readonly state: string;
  /** The step in it, such as `dumping`, where it works through several; else null. */
  readonly step: string | null;
  /** The same for people, such as `checkpointing` and `dumping`. */
  readonly words: StateWords;
  /** Whether the file ends in the middle of work: a wrapper is at it, or died there. */
  readonly inTheMiddle: boolean;
  /** An image that the checkpoint in whose middle it is has begun; null elsewhere. */
  readonly unfinishedImage: { readonly generation: number; readonly directory: string } | null;
  /** Why the latest checkpoint, restore, or command failed; null where none did, or a later one cleared it. */
  readonly failure: Failure | null;
  /** Null before the job is taken up, and where the place of the images was out of reach then. */
  readonly life: LifeReport | null;
  readonly image: ImageReport | null;
  /** What the machine accepts in this state. */
  readonly next: readonly NextEvent[];
  /** The latest entries, oldest first. `ms` is how long the container was in `from` during that command. */
  readonly history: readonly HistoryEntry[];
  /** How many older entries the file holds. */
  readonly historyLeftOut: number;
}

const image = z.object({ generation: z.number(), directory: z.string() });
const failure = z.object({ message: z.string(), code: z.string(), status: z.optional(z.number()) });
const life = z.object({
  epoch: z.optional(z.number()),
  refused: z.optional(z.string()),
  unseen: z.optional(z.string()),
});
const contextSchema = z.object({
  awaitsResume: z.optional(z.boolean()),
  image: z.optional(image),
  failure: z.optional(failure),
  life: z.optional(life),
});
const childSchema = z.object({ image: z.optional(image) });

/**
 * Says what a state file holds. Reads it and the image's manifest, starts nothing, and writes nothing. Of the
 * machine's context only what {@link Report} names is taken: never a command line.
 *
 * @param historyLimit at most so many entries of the history, the latest.
 * @throws Problem `state-missing`, `state-broken`, or `state-version`.
 */
export function reportOn(stateFile: string, historyLimit: number): Report {
  const record = loadState(stateFile);
  const { id, key, bundle, root, imageRoot, history } = record;
  try {
    const path = pathOf(record.snapshot.value, record.snapshot);
    const [state = '', step] = path.split('/');
    const next = nextEvents(containerMachine, state);
    if (!next)
      throw new Error(`it names the state ${JSON.stringify(state)}, which the machine does not have`);
    const context = contextSchema.parse(record.snapshot.context);
    const interruption = interruptionIn(record.snapshot);
    const building =
      interruption?.state === 'alive.checkpointing'
        ? childSchema.safeParse(interruption.child).data
        : undefined;
    const shown = historyLimit === 0 ? [] : history.slice(-historyLimit);
    return {
      ...{ id, key, bundle, root, imageRoot, stateFile },
      writtenAt: statSync(stateFile).mtime.toISOString(),
      state,
      step: step ?? null,
      words: wordsFor(state, step),
      inTheMiddle: interruption !== undefined,
      unfinishedImage: building?.image ?? null,
      failure: context.failure ? plainFailure(context.failure) : null,
      life: context.life && context.life.unseen === undefined ? reportLife(record, context.life) : null,
      image: context.image ? reportImage(record, context.image) : null,
      // A resume that nobody is to send is not one of them: the machine answers it where an engine's is outstanding.
      next: next.filter(({ event, to }) => event !== 'RESUME' || to.length > 0 || context.awaitsResume),
      history: shown,
      historyLeftOut: history.length - shown.length,
    };
  } catch (error) {
    const why = error instanceof z.$ZodError ? z.prettifyError(error) : error;
    throw new Problem('state-broken', `${stateFile} cannot be understood: ${reasonOf(why)}`, {
      cause: error,
    });
  }
}

function plainFailure({ message, code, status }: z.infer<typeof failure>): Failure {
  return { message, code, ...(status === undefined ? {} : { status }) };
}
