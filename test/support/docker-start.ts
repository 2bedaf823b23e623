import type { Stack } from './stack.ts';
import { Hopeless, waitFor } from './wait.ts';

/**
 * `docker start --checkpoint`, again where dockerd could not hand the checkpoint to containerd because what it handed
 * over the time before has not been collected yet ("already exists"; seen with plain runc, Docker 20.10).
 */
export async function startFromCheckpoint(stack: Stack, id: string, checkpoint: string): Promise<void> {
  await waitFor(`${id} to be started from ${checkpoint}`, async () => {
    const words = ['start', '--checkpoint', checkpoint, id];
    const { exitCode, stderr } = await stack.docker(words, { mayFail: true });
    if (exitCode === 0) return true;
    if (/failed to upload checkpoint to containerd: .*already exists/.test(stderr)) throw new Error(stderr);
    throw new Hopeless(stderr);
  });
}
