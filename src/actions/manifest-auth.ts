import { createHmac, timingSafeEqual } from 'node:crypto';
import { canonicalJson } from './canonical-json.ts';
import type { ManifestKeys } from './manifest-keys.ts';
import { Problem } from './problem.ts';

/** Who vouches for a manifest. */
export interface ManifestAuth {
  readonly keyId: string;
  /** HMAC-SHA-256 in hexadecimal over the canonical JSON of the manifest without `auth` and `sha256`. */
  readonly hmac: string;
}

/** Signs what a manifest says, with the current key. */
export function signManifest(said: object, { current, secrets }: ManifestKeys): ManifestAuth {
  return { keyId: current, hmac: hmacOf(said, secrets.get(current) as Buffer).toString('hex') };
}

/**
 * Refuses a manifest that none of the host's keys vouches for.
 *
 * @param said what the manifest says, without `auth` and `sha256`
 * @throws Problem `image-auth-missing`, `image-auth-key`, `image-auth`
 */
export function verifyManifest(
  path: string,
  said: object,
  auth: ManifestAuth | undefined,
  { secrets }: ManifestKeys,
): void {
  if (!auth) {
    throw new Problem(
      'image-auth-missing',
      `${path} is not signed, and this host restores only what one of its manifestKeys has signed; take an image ` +
        'that was made with a key, or start the job from scratch',
    );
  }
  const secret = secrets.get(auth.keyId);
  if (!secret) {
    throw new Problem(
      'image-auth-key',
      `${path} is signed with the key ${JSON.stringify(auth.keyId)}, this host's manifestKeys hold ` +
        `${[...secrets.keys()].join(', ')}; add that key to them if you trust who has it, or take another image`,
    );
  }
  if (!timingSafeEqual(hmacOf(said, secret), Buffer.from(auth.hmac, 'hex'))) {
    throw new Problem(
      'image-auth',
      `${path} is not what the key ${JSON.stringify(auth.keyId)} has signed: somebody without the key has changed ` +
        'it, or two hosts have different secrets of that id; find out which before any image of this job is used',
    );
  }
}

const hmacOf = (said: object, secret: Buffer): Buffer =>
  createHmac('sha256', secret).update(canonicalJson(said)).digest();
