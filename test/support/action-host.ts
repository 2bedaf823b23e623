import { pino } from 'pino';
import type { Host } from '../../src/actions/host.ts';

/** A host on which nothing is where it usually is. */
export function hostWith(given: Partial<Host> = {}): Host {
  return {
    config: {
      checkpointRoot: '/nowhere/checkpoints',
      allowedRoots: ['/nowhere/checkpoints'],
      logFile: '/nowhere/log',
      runDir: '/nowhere/run',
      takeoverAfterSeconds: 60,
      restoreAttempts: 2,
      keep: 2,
      keepFinishedSeconds: 604_800,
      compressionLevel: 0,
      scratchDir: '/nowhere/scratch',
      freezeStallSeconds: 30,
      maxFreezeSeconds: 900,
      shareTimeoutSeconds: 5,
      onUnreachable: 'scratch',
      onStricterDefinition: 'refuse',
      verifyByRestore: false,
      lockTimeoutSeconds: 1,
    },
    realRunc: '/nowhere/runc',
    env: { PATH: process.env.PATH },
    openFilesLimit: undefined,
    log: pino({ enabled: false }),
    ...given,
  };
}
