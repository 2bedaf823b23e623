/** One field to encode: a varint, bytes, or one of the two fixed sizes that Tardis skips. */
export type ToEncode =
  | readonly [number: number, value: number | bigint | string | Uint8Array]
  | readonly [number: number, value: Uint8Array, wireType: 1 | 5];

/** Encodes a Protocol Buffers message (protobuf.dev, "Encoding"). */
export function encode(...fields: readonly ToEncode[]): Buffer {
  return Buffer.concat(
    fields.map(([number, value, wireType]) => {
      const tag = (type: number): Buffer => encodeVarint((BigInt(number) << 3n) | BigInt(type));
      if (typeof value === 'number' || typeof value === 'bigint') {
        return Buffer.concat([tag(0), encodeVarint(BigInt(value))]);
      }
      const bytes = Buffer.from(value);
      if (wireType !== undefined) return Buffer.concat([tag(wireType), bytes]);
      return Buffer.concat([tag(2), encodeVarint(BigInt(bytes.length)), bytes]);
    }),
  );
}

export function encodeVarint(value: bigint): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7n) {
    if (rest < 0x80n) return Buffer.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 0x7fn) | 0x80);
  }
}

/** A CRIU image: two magic numbers, then every entry after its length. */
export function criuImage(...entries: readonly Buffer[]): Buffer {
  const magics = Buffer.from('56564943c05a5a5a', 'hex');
  return Buffer.concat([
    magics,
    ...entries.flatMap((entry) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(entry.length);
      return [length, entry];
    }),
  ]);
}
