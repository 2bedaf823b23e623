import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Slot, takeSlot } from '../../src/actions/dump-slots.ts';
import { hostWith } from './action-host.ts';

/*
 * Another wrapper, for the tests of the slots: does what the lines on its standard input say, and says when it has.
 * Its arguments are the run directory and how many dumps there may be at once.
 */
const [runDir = '', count = ''] = process.argv.slice(2);
const config = { ...hostWith().config, runDir, maxDumps: Number(count), lockTimeoutSeconds: 600 };
const take = () => takeSlot(hostWith({ config }), 'dumps');
let slot: Slot | undefined;

const orders: Record<string, (argument: string) => void | Promise<void>> = {
  async take() {
    slot = await take();
  },
  release: () => slot?.release(),
  /** Stands in a directory together with the others that have a slot, many times over; answers how many at most. */
  async crowd(directory) {
    mkdirSync(directory, { recursive: true });
    const mine = join(directory, String(process.pid));
    let most = 0;
    for (let round = 0; round < 10; round++) {
      const taken = await take();
      writeFileSync(mine, '');
      most = Math.max(most, readdirSync(directory).length);
      rmSync(mine);
      taken.release();
    }
    process.stdout.write(`${most}\n`);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [order = '', argument = ''] = line.split(' ');
  await orders[order]?.(argument);
  process.stdout.write(`${order}\n`);
}
