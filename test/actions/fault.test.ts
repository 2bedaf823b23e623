import { afterEach, describe, expect, it } from 'vitest';
import { armFaults, faultPoint, hangingIfOrdered, withFaults } from '../../src/actions/fault.ts';
import { hostWith } from '../support/action-host.ts';

const arm = (TARDIS_FAULT: string, faultInjection: boolean | undefined = true) => {
  const host = hostWith({ env: { TARDIS_FAULT } });
  armFaults({ ...host, config: { ...host.config, ...(faultInjection ? { faultInjection } : {}) } });
};
afterEach(() => armFaults(hostWith()));

describe('a fault', () => {
  it('should never come where the host does not allow any, whatever the environment says', async () => {
    arm('before:freeze:kill,at:freeze:ENOSPC,at:freeze:hang,nonsense', false);
    expect(await withFaults('freeze', () => 'done')).toBe('done');
    expect(() => faultPoint('freeze')).not.toThrow();
    expect(hangingIfOrdered('runc', ['x'])).toEqual(['runc', ['x']]);
  });

  it('should come at its step alone', async () => {
    arm('at:freeze:ENOSPC');
    expect(await withFaults('thaw', () => 'done')).toBe('done');
    await expect(withFaults('freeze', () => 'done')).rejects.toMatchObject({ code: 'ENOSPC' });
  });

  it.each([
    ['before', 0],
    ['at', 0],
    ['after', 1],
  ])('should come %s the effect', async (moment, done) => {
    arm(`${moment}:freeze:EIO`);
    let times = 0;
    const step = withFaults('freeze', () => {
      times += 1;
    });
    await expect(step).rejects.toMatchObject({ code: 'EIO' });
    expect(times).toBe(done);
  });

  it('should come at a point inside a step', () => {
    arm('before:freeze:kill,at:commitImage.renamed:EIO');
    expect(() => faultPoint('commitImage.renamed')).toThrow(expect.objectContaining({ code: 'EIO' }));
  });

  it("should stop the step's program before its first instruction, and no other step's", async () => {
    arm('at:freeze:hang');
    const run = async () => hangingIfOrdered('runc', ['a b'])[0];
    expect(await withFaults('thaw', run)).toBe('runc');
    expect(await withFaults('freeze', run)).toBe('/bin/sh');
  });

  it.each(['kill', 'before:freeze', 'before:freeze:sleep', 'before:freeze:hang', 'at:freeze:kill,'])(
    'should not be passed over where it is mistyped: %s',
    (words) => {
      expect(() => arm(words)).toThrow(expect.objectContaining({ code: 'fault' }));
    },
  );
});
