import fs from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { CheckpointStep } from '../machines/checkpoint.ts';
import type { ContainerIdentity } from '../machines/vocabulary.ts';
import { baseIdentityOf } from './base-identity.ts';
import { compressDump } from './compression.ts';
import { type OnGrownFiles, onGrownFilesOf, readContainerConfig } from './container-config.ts';
import { copyFiles } from './copy-files.ts';
import { dropPendingSignals } from './criu-image.ts';
import { readStoppedTasks } from './dump-memory.ts';
import { dumpPlaceOf, levelFor } from './dump-place.ts';
import { sentSignals } from './ending.ts';
import { chunkBytes, digestsOf, filesBelow, type KnownDigests } from './file-digests.ts';
import { fingerprintOf } from './fingerprint.ts';
import type { Host } from './host.ts';
import { readHostFacts } from './host-facts.ts';
import { readNeeds } from './image-needs.ts';
import { dumpIn, partialOf } from './image-store.ts';
import { makePrivate } from './make-private.ts';
import {
  compressedSchemaVersion,
  type Manifest,
  manifestName,
  manifestSchemaVersion,
  writeManifest,
} from './manifest.ts';
import { readManifestKeys } from './manifest-keys.ts';
import { locateRootfs } from './rootfs-location.ts';
import { readRootfsSummary } from './save-rootfs.ts';
import type { VolumeFile } from './volume-files.ts';

/** Switches of `runc checkpoint` that `runc restore` needs as well: the shim never passes them there. */
const switchesForRestore = ['tcp-established', 'ext-unix-sk', 'shell-job'] as const;

/**
 * Has the disk write the large files while they are digested, so that little is left to the commit, which syncs them all.
 *
 * @throws the file system's own error where one could not be written. It must not be passed over: Linux tells it once
 * (errseq_t, lib/errseq.c), so the commit would not hear of it.
 */
async function writeBack({ watch }: Host, directory: string, names: readonly string[]): Promise<void> {
  const large = names
    .map((name) => join(directory, name))
    .filter((path) => fs.statSync(path).size > chunkBytes);
  for (const path of large) {
    const file = await open(path);
    const synced = () => file.datasync().finally(() => file.close());
    await (watch ? watch.progress.writing(synced) : synced());
  }
}

/** Digests by the paths that the same files have in a directory that they are in by now. */
const movedTo = (directory: string, known: KnownDigests = new Map()): KnownDigests =>
  new Map([...known].map(([path, digests]) => [join(directory, basename(path)), digests]));

/** SIGINT, SIGQUIT, SIGTERM (signal(7)): systemd sends them itself, past runc, when a host goes down. */
const stopSignals = [2, 3, 15];

/**
 * A signal that was to stop the job, and that came while it was frozen for this checkpoint, belongs to this life: the next
 * one would die of it before its first instruction. Others that wait (of the job's own, or of a timer) stay.
 */
function dropStopSignals({ log }: Host, container: ContainerIdentity, dump: string): void {
  const sent = new Set([...stopSignals, ...sentSignals(container).map(({ signal }) => signal)]);
  const dropped = dropPendingSignals(dump, (signal, sender) => sender === 0 && sent.has(signal));
  if (dropped > 0)
    log.info({ signals: [...sent], dropped }, 'left signals out that were to stop the job that was dumped');
}

/** A job that runs on writes on, and CRIU restores no file at another size than at the dump. */
function warnOfGrowth({ log }: Host, files: readonly VolumeFile[], onGrown: OnGrownFiles): void {
  const written = files.filter((file) => file.written && !file.appended).map(({ path }) => path);
  if (written.length === 0 || onGrown === 'truncate') return;
  const more = written.length > 3 ? ` and ${written.length - 3} more` : '';
  log.warn(
    { files: written },
    `the job writes to ${written.slice(0, 3).join(', ')}${more} on a volume: once that has grown this image is refused; ` +
      'set TARDIS_ON_GROWN_FILES=truncate to have it cut back at the restore',
  );
}

/**
 * Writes the manifest over everything that is in the partial image by now, and the two configurations. A job that is
 * left running runs meanwhile: nothing here looks at what it may change.
 *
 * @param known digests of CRIU's pages that were made while it wrote them.
 * @throws Problem `manifest-keys`; `rootfs-...` where the layers cannot be found.
 */
export async function describeImage(
  host: Host,
  { container, call, request, image }: CheckpointStep,
  known?: KnownDigests,
): Promise<void> {
  const partial = partialOf(image);
  const level = levelFor(host, { container });
  const { dumpDirectory } = image;
  const config = readContainerConfig(container.bundle);
  dropStopSignals(host, container, dumpPlaceOf({ image }));
  const volumeFiles = readNeeds(partial);
  if (request.leaveRunning) warnOfGrowth(host, volumeFiles, onGrownFilesOf(config.env));
  const compressed =
    dumpDirectory && level > 0 ? await compressDump(dumpDirectory, dumpIn(image), level) : undefined;
  if (dumpDirectory && !compressed)
    await copyFiles(dumpDirectory, fs.readdirSync(dumpDirectory), dumpIn(image), 'into the image');
  if (dumpDirectory) makePrivate(dumpDirectory);
  const createdAt = new Date().toISOString();
  fs.writeFileSync(join(partial, 'spec.dump'), config.text, { mode: 0o600 });
  fs.writeFileSync(
    join(partial, 'config.dump'),
    `${JSON.stringify({ id: container.id, checkpointedTime: createdAt, ociRuntime: 'tardis-runc', key: container.key }, null, 1)}\n`,
    { mode: 0o600 },
  );
  const names = filesBelow(partial).filter((name) => name !== manifestName);
  const [facts, files, base] = await Promise.all([
    readHostFacts(host),
    digestsOf(partial, names, movedTo(dumpIn(image), known)),
    baseIdentityOf(locateRootfs(config.rootfs)),
    writeBack(host, partial, names),
  ]);
  const switches = switchesForRestore.filter((name) => call.switches.includes(name));
  const manifest: Manifest = {
    schemaVersion: compressed ? compressedSchemaVersion : manifestSchemaVersion,
    key: container.key,
    generation: image.generation,
    epoch: image.epoch,
    createdAt,
    container: {
      id: container.id,
      fingerprint: fingerprintOf(config.shape),
      shape: {
        ...config.shape,
        args: [...config.shape.args],
        namespaces: [...config.shape.namespaces],
        mountDestinations: [...config.shape.mountDestinations],
      },
    },
    dump: {
      leftRunning: request.leaveRunning,
      flags: [...switches, 'file-locks' as const].map((name) => `--${name}` as const),
      stoppedTasks: readStoppedTasks(container, partial),
      volumeFiles,
    },
    rootfs: { ...readRootfsSummary(partial), base },
    host: { ...facts, cpuFlags: [...facts.cpuFlags], kernelFeatures: [...facts.kernelFeatures] },
    files,
    ...(compressed ? { compressed } : {}),
  };
  writeManifest(partial, manifest, readManifestKeys(host.config.manifestKeys));
  makePrivate(partial);
}
