import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { dropRollback, isRollbackPending, rollBackRootfs, saveRollback } from '../../src/actions/rollback.ts';
import { hostWith } from '../support/action-host.ts';
import { isRoot, useScratch } from '../support/action-scratch.ts';
import { problemOf } from '../support/action-thrown.ts';
import { rollbacksIn } from '../support/rollbacks.ts';

const scratch = useScratch();
const hostOn = (scratchDir: string) => hostWith({ config: { ...hostWith().config, scratchDir } });
const file = () => scratch.at('bundle', 'rootfs', 'file');

function container() {
  mkdirSync(scratch.at('bundle', 'rootfs'), { recursive: true });
  writeFileSync(
    scratch.at('bundle', 'config.json'),
    JSON.stringify({ process: {}, root: { path: 'rootfs' } }),
  );
  writeFileSync(file(), 'own'.repeat(1 << 20));
  return {
    id: 'job',
    root: scratch.at('root'),
    bundle: scratch.at('bundle'),
    key: 'job',
    imageRoot: '/nowhere',
  };
}

describe('a rollback', () => {
  it('is kept on the host’s own disk, and neither in the bundle nor beside the root file system', async () => {
    const [host, job] = [hostOn(scratch.at('disk')), container()];
    await saveRollback(host, job);
    expect(rollbacksIn(scratch.at('disk'))).toHaveLength(1);
    expect(existsSync(scratch.at('bundle', 'tardis-rollback'))).toBe(false);
    expect(existsSync(scratch.at('bundle', 'rootfs.tardis-rollback'))).toBe(false);
    writeFileSync(file(), 'of the image');
    expect(isRollbackPending(host, job)).toBe(true);
    await rollBackRootfs(host, job);
    expect(readFileSync(file(), 'utf8')).toBe('own'.repeat(1 << 20));
    await dropRollback(host, job);
    expect([isRollbackPending(host, job), rollbacksIn(scratch.at('disk'))]).toEqual([false, []]);
  });

  it.runIf(isRoot)(
    'of a root file system that is the container’s own, without room, fails when it is needed, and not before',
    async () => {
      const [host, job] = [hostOn(scratch.tmpfs('disk', 'mode=700,size=1m')), container()];
      await saveRollback(host, job);
      expect(isRollbackPending(host, job)).toBe(true);
      expect(await problemOf(() => rollBackRootfs(host, job))).toMatchObject({
        code: 'rollback',
        message: expect.stringMatching(/remove the container and create it again$/),
      });
      await dropRollback(host, job);
      expect(isRollbackPending(host, job)).toBe(false);
    },
  );
});
