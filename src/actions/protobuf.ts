/** One field of a Protocol Buffers message: a varint, or bytes (a string, or a message in it). */
export interface Field {
  readonly number: number;
  readonly varint?: bigint;
  readonly bytes?: Buffer;
}

/** The fields of one Protocol Buffers message (protobuf.dev, "Encoding"); reading ends at what it cannot read. */
export function fieldsOf(message: Buffer): Field[] {
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

/**
 * A message with one of its fields of bytes changed, wherever it occurs, and all else byte for byte as it was.
 *
 * @param change gives the new bytes, or undefined to leave the field out.
 * @throws RangeError where the message cannot be read to its end: nothing may be lost of it.
 */
export function withField(
  message: Buffer,
  number: number,
  change: (bytes: Buffer) => Buffer | undefined,
): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 64n; shift += 7n) {
      const byte = message.readUInt8(at++);
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new RangeError('a varint has more than 64 bits');
  };
  while (at < message.length) {
    const start = at;
    const tag = varint();
    const wireType = Number(tag & 7n);
    if (wireType === 0) varint();
    else if (wireType === 1) at += 8;
    else if (wireType === 5) at += 4;
    else if (wireType === 2) {
      const head = message.subarray(start, at);
      const length = Number(varint());
      const bytes = message.subarray(at, at + length);
      at += length;
      if (at > message.length) break;
      if (Number(tag >> 3n) === number) {
        const changed = change(bytes);
        if (changed) parts.push(head, varintOf(changed.length), changed);
        continue;
      }
    } else throw new RangeError(`wire type ${wireType} is not known`);
    parts.push(message.subarray(start, at));
  }
  if (at !== message.length) throw new RangeError('the message is cut short');
  return Buffer.concat(parts);
}

function varintOf(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) | 0x80);
  }
}
