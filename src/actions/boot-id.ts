import { readFileSync } from 'node:fs';

/** Tells this run of the host's kernel from every other one (random(4)). */
export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
