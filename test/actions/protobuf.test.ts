import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Field, fieldsOf } from '../../src/actions/protobuf.ts';
import { encode, encodeVarint, type ToEncode } from '../support/action-protobuf.ts';

const number = fc.integer({ min: 1, max: 2 ** 29 - 1 });
const anyField: fc.Arbitrary<ToEncode> = fc.oneof(
  fc.tuple(number, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  fc.tuple(number, fc.uint8Array({ maxLength: 300 })),
  fc.tuple(number, fc.uint8Array({ minLength: 8, maxLength: 8 }), fc.constant(1 as const)),
  fc.tuple(number, fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.constant(5 as const)),
);

/** What is to be read of fields that were encoded: the fixed sizes are skipped. */
const readable = (fields: readonly ToEncode[]): Field[] =>
  fields.flatMap(([field, value, wireType]): Field[] => {
    if (wireType !== undefined) return [];
    if (typeof value === 'bigint' || typeof value === 'number')
      return [{ number: field, varint: BigInt(value) }];
    return [{ number: field, bytes: Buffer.from(value) }];
  });

describe('fieldsOf', () => {
  it('should read the examples of the encoding guide', () => {
    expect(fieldsOf(Buffer.from('089601', 'hex'))).toEqual([{ number: 1, varint: 150n }]);
    expect(fieldsOf(Buffer.from('120774657374696e67', 'hex'))).toEqual([
      { number: 2, bytes: Buffer.from('testing') },
    ]);
    expect(fieldsOf(Buffer.from('1a03089601', 'hex'))).toEqual([
      { number: 3, bytes: Buffer.from('089601', 'hex') },
    ]);
  });

  it('should read nothing in an empty message', () => {
    expect(fieldsOf(Buffer.alloc(0))).toEqual([]);
  });

  it('should read every field that was encoded, in its order', () => {
    fc.assert(
      fc.property(fc.array(anyField, { maxLength: 12 }), (fields) => {
        expect(fieldsOf(encode(...fields))).toEqual(readable(fields));
      }),
    );
  });

  it('should read a torn message up to the tear', () => {
    fc.assert(
      fc.property(fc.array(anyField, { minLength: 1, maxLength: 6 }), fc.nat(), (fields, cut) => {
        const whole = encode(...fields);
        const torn = whole.subarray(0, cut % whole.length);
        let fit = 0;
        while (encode(...fields.slice(0, fit + 1)).length <= torn.length) fit++;
        expect(fieldsOf(torn)).toEqual(readable(fields.slice(0, fit)));
      }),
    );
  });

  it('should never throw, and never read more than there is, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const total = fieldsOf(Buffer.from(bytes)).reduce(
          (sum, field) => sum + 1 + (field.bytes?.length ?? 0),
          0,
        );
        expect(total).toBeLessThanOrEqual(bytes.length);
      }),
      { numRuns: 1000 },
    );
  });

  it.each([
    ['a length beyond the end', Buffer.concat([encode([1, 7]), Buffer.from([0x12, 0x05, 0x61])])],
    [
      'a length of 64 bits',
      Buffer.concat([encode([1, 7]), Buffer.from([0x12]), encodeVarint(2n ** 64n - 1n)]),
    ],
    ['a varint without an end', Buffer.concat([encode([1, 7]), Buffer.alloc(30, 0xff)])],
    ['a group, which CRIU does not use', Buffer.concat([encode([1, 7]), Buffer.from([0x13, 0x08, 0x01])])],
  ])('should end its reading at %s', (_, message) => {
    expect(fieldsOf(message)).toEqual([{ number: 1, varint: 7n }]);
  });
});
