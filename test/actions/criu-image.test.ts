import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dropPendingSignals, tasksDumpedStopped, unlinkedFilesIn } from '../../src/actions/criu-image.ts';
import { Problem } from '../../src/actions/problem.ts';
import { criuImage, encode } from '../support/action-protobuf.ts';
import { useScratch } from '../support/action-scratch.ts';

const image = useScratch();
const write = (name: string, bytes: Uint8Array): void => writeFileSync(image.at(name), bytes);

const alive = 1;
const stopped = 3;
const zombie = 6;
/** A `core_entry` of x86-64 with its registers (2), and for a process its `task_core_entry` (3). */
const core = (state: number): Buffer =>
  criuImage(
    encode([1, 1], [2, encode([1, 0n])], [3, encode([1, state], [2, 0], [6, 'sleep'])], [4, encode([1, 0])]),
  );
const thread = criuImage(encode([1, 1], [4, encode([1, stopped])]));

/** What is read, or the code of the Problem that says why not. */
const orCode = <Value>(read: () => Value): Value | string => {
  try {
    return read();
  } catch (error) {
    if (error instanceof Problem) return error.code;
    throw error;
  }
};

describe('tasksDumpedStopped', () => {
  it('should name the processes that were stopped, by their pid in the container', () => {
    write('core-1.img', core(alive));
    write('core-17.img', core(stopped));
    write('core-204.img', core(stopped));
    write('core-9.img', core(zombie));
    expect(tasksDumpedStopped(image.path).sort()).toEqual([17, 204]);
  });

  it('should take neither threads nor other images for processes', () => {
    write('core-2.img', thread);
    write('core-3.img.bak', core(stopped));
    write('xcore-4.img', core(stopped));
    write('ids-5.img', core(stopped));
    expect(tasksDumpedStopped(image.path)).toEqual([]);
  });

  it('should find none in an empty image', () => {
    expect(tasksDumpedStopped(image.path)).toEqual([]);
  });
});

/** A `siginfo_t` of a signal, its si_code, and its sender. */
function signalInfo(signal: number, code: number, sender: number): Buffer {
  const info = Buffer.alloc(128);
  info.writeInt32LE(signal, 0);
  info.writeInt32LE(code, 8);
  info.writeInt32LE(sender, 16);
  return encode([1, info]);
}
const queue = (...infos: Buffer[]) => encode(...infos.map((info): [number, Buffer] => [1, info]));
/** A core with signals that wait for the process, and for its thread. */
const coreWith = (shared: Buffer, own: Buffer): Buffer =>
  criuImage(
    encode([1, 1], [3, encode([1, alive], [10, shared], [6, 'job'])], [5, encode([1, 7n], [9, own], [8, 1])]),
  );

describe('dropPendingSignals', () => {
  const term = 15;
  const isStop = (signal: number, sender: number) => signal === term && sender === 0;

  it('drops what was sent from outside the container, and nothing else', () => {
    const kept = [
      signalInfo(term, 0, 9),
      signalInfo(10, 0, 0),
      signalInfo(term, -6, 0),
      signalInfo(14, 128, 0),
    ];
    const stop = signalInfo(term, 0, 0);
    write('core-1.img', coreWith(queue(stop, ...kept), queue(stop)));
    write('core-7.img', coreWith(queue(...kept), queue()));
    write('pages-1.img', stop);
    const untouched = ['core-7.img', 'pages-1.img'].map((name) => readFileSync(image.at(name)));
    expect(dropPendingSignals(image.path, isStop)).toBe(2);
    expect(readFileSync(image.at('core-1.img'))).toEqual(coreWith(queue(...kept), queue()));
    expect(['core-7.img', 'pages-1.img'].map((name) => readFileSync(image.at(name)))).toEqual(untouched);
    expect(dropPendingSignals(image.path, isStop)).toBe(0);
  });

  it('refuses a core that is cut short, and leaves it as it is', () => {
    const torn = coreWith(queue(signalInfo(term, 0, 0)), queue()).subarray(0, -3);
    write('core-1.img', torn);
    expect(orCode(() => dropPendingSignals(image.path, isStop))).toBe('criu-image');
    expect(readFileSync(image.at('core-1.img'))).toEqual(torn);
  });
});

const regular = (id: number, name: string): Buffer =>
  encode([1, 1], [2, id], [3, encode([1, id], [2, 2], [3, 0], [5, encode([1, 0])], [6, name])]);
const pipe = (id: number): Buffer => encode([1, 3], [2, id], [5, encode([1, id])]);
const remap = (original: number, link: number, type?: number): Buffer =>
  type === undefined ? encode([1, original], [2, link]) : encode([1, original], [2, link], [3, type]);

describe('unlinkedFilesIn', () => {
  it('should pair a file with the link that CRIU had made for it', () => {
    write(
      'files.img',
      criuImage(pipe(1), regular(2, '/data/läufe.db'), regular(3, '/data/link_remap.1'), pipe(4)),
    );
    write('remap-fpath.img', criuImage(remap(2, 3, 0)));
    expect(unlinkedFilesIn(image.path)).toEqual([{ name: '/data/läufe.db', remap: '/data/link_remap.1' }]);
  });

  it('should take a remap without a type for a link, the default of its kind', () => {
    write('files.img', criuImage(regular(2, 'a'), regular(3, 'b'), regular(5, 'c'), regular(6, 'd')));
    write('remap-fpath.img', criuImage(remap(2, 3), remap(5, 6)));
    expect(unlinkedFilesIn(image.path)).toEqual([
      { name: 'a', remap: 'b' },
      { name: 'c', remap: 'd' },
    ]);
  });

  it.each([
    ['ghost files', remap(2, 3, 1)],
    ['tasks of /proc', remap(2, 3, 2)],
    ['a file that is not there', remap(9, 3, 0)],
    ['a link that is not there', remap(2, 9, 0)],
    ['nothing', encode()],
  ])('should leave out a remap of %s', (_, entry) => {
    write('files.img', criuImage(regular(2, 'a'), regular(3, 'b')));
    write('remap-fpath.img', criuImage(entry));
    expect(unlinkedFilesIn(image.path)).toEqual([]);
  });

  it('should find none where CRIU made no remaps, whatever else there is', () => {
    write('files.img', Buffer.from('no image'));
    expect(unlinkedFilesIn(image.path)).toEqual([]);
  });
});

describe('a damaged CRIU image', () => {
  const anyBytes = fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    fc
      .array(fc.uint8Array({ maxLength: 30 }), { maxLength: 4 })
      .map((entries) => criuImage(...entries.map((entry) => Buffer.from(entry)))),
  );

  it('should be refused as torn, or give only files that have both names', () => {
    fc.assert(
      fc.property(anyBytes, anyBytes, anyBytes, (cores, files, remaps) => {
        write('core-1.img', cores);
        write('files.img', files);
        write('remap-fpath.img', remaps);
        expect([[], [1], 'criu-image']).toContainEqual(orCode(() => tasksDumpedStopped(image.path)));
        const unlinked = orCode(() => unlinkedFilesIn(image.path));
        for (const file of typeof unlinked === 'string' ? [] : unlinked) {
          expect(file).toEqual({ name: expect.any(String), remap: expect.any(String) });
        }
      }),
      { numRuns: 100 },
    );
    expect(readdirSync(image.path).sort()).toEqual(['core-1.img', 'files.img', 'remap-fpath.img']);
  });

  // A file that is open and unlinked is then missing at the restore: the checkpoint should fail instead.
  it('should be told from a whole one where an entry is torn', () => {
    const whole = criuImage(regular(2, 'a'), regular(3, 'b'));
    write('files.img', whole.subarray(0, whole.length - 1));
    write('remap-fpath.img', criuImage(remap(2, 3)));
    expect(() => unlinkedFilesIn(image.path)).toThrow();
  });
});
