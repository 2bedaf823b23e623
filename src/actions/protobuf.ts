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
