import { join } from 'node:path';
import fs from 'fs-extra';

/**
 * The pids (in the container) of the tasks that were stopped when they were dumped, as SIGSTOP stops them.
 *
 * CRIU writes one `core-<pid>.img` a task (images/core.proto): two magic numbers, a length, and a `core_entry`,
 * whose field 3 is the `task_core_entry`, whose field 1 is the task's state; 3 is "stopped" (criu/include/
 * pstree.h, TASK_STOPPED). Threads have such a file too, without a field 3.
 */
export function stoppedTasks(imageDirectory: string): number[] {
  const stopped: number[] = [];
  for (const name of fs.readdirSync(imageDirectory)) {
    const pid = /^core-(\d+)\.img$/.exec(name)?.[1];
    if (pid && taskState(fs.readFileSync(join(imageDirectory, name))) === 3n) stopped.push(Number(pid));
  }
  return stopped.sort((a, b) => a - b);
}

const headerBytes = 12;

function taskState(image: Buffer): bigint | undefined {
  const core = fieldsOf(image.subarray(headerBytes));
  const task = core.find(({ number, bytes }) => number === 3 && bytes)?.bytes;
  return task && fieldsOf(task).find(({ number }) => number === 1)?.varint;
}

interface Field {
  readonly number: number;
  readonly varint?: bigint;
  readonly bytes?: Buffer;
}

/** The fields of one Protocol Buffers message (protobuf.dev, "Encoding"); reading ends at what it cannot read. */
function fieldsOf(message: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): bigint | undefined => {
    let value = 0n;
    for (let shift = 0n; at < message.length && shift < 64n; shift += 7n) {
      const byte = message[at++] as number;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return undefined;
  };
  while (at < message.length) {
    const tag = varint();
    if (tag === undefined) break;
    const number = Number(tag >> 3n);
    const wireType = Number(tag & 7n);
    if (wireType === 0) {
      const value = varint();
      if (value === undefined) break;
      fields.push({ number, varint: value });
    } else if (wireType === 2) {
      const length = Number(varint() ?? -1n);
      if (length < 0 || at + length > message.length) break;
      fields.push({ number, bytes: message.subarray(at, at + length) });
      at += length;
    } else if (wireType === 1) at += 8;
    else if (wireType === 5) at += 4;
    else break;
  }
  return fields;
}
