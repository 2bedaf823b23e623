import { config } from 'zod/mini';
import en from 'zod/v4/locales/en.js';

/*
 * zod in its small form, with words for what is wrong: all of zod takes 19 ms to load, in every call of a container
 * that Tardis looks after (docs/performance.md).
 */
config(en());

export * from 'zod/mini';
export { $ZodError } from 'zod/v4/core';
