/** As many cores as digests may use. A module of its own: the program's first lines need it, and not the digests. */
export const mostLanes = 8;
