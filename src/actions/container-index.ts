import fs from 'node:fs';
import { join } from 'node:path';
import type { ContainerIdentity } from '../machines/vocabulary.ts';

/**
 * The index of enabled containers: `<runDir>/containers/<runc's root>/<id>` is a symlink to the bundle. The
 * launcher looks there, and only there, to tell whether a call concerns Tardis.
 */
export const indexEntryOf = (runDir: string, root: string, id: string): string =>
  join(runDir, 'containers', root, id);

/** Makes the container known to the launcher; an entry of an earlier container of that id is replaced. */
export function enterIndex(
  runDir: string,
  container: Pick<ContainerIdentity, 'root' | 'id' | 'bundle'>,
): void {
  const entry = indexEntryOf(runDir, container.root, container.id);
  fs.mkdirSync(join(entry, '..'), { recursive: true, mode: 0o700 });
  // Beside the index, not in it: a draft that a killed wrapper leaves must not look like a container.
  const draft = join(runDir, `draft.${process.pid}`);
  fs.rmSync(draft, { force: true });
  fs.symlinkSync(container.bundle, draft);
  fs.renameSync(draft, entry);
}

/** Makes the container unknown to the launcher. */
export function leaveIndex(runDir: string, container: ContainerIdentity): void {
  fs.rmSync(indexEntryOf(runDir, container.root, container.id), { force: true });
}

/** The bundle of an indexed container, or undefined. */
export function bundleFromIndex(runDir: string, root: string, id: string): string | undefined {
  try {
    return fs.readlinkSync(indexEntryOf(runDir, root, id));
  } catch {
    return undefined;
  }
}

/** All indexed containers; none where the index cannot be read. */
export const indexedContainers = (runDir: string): Pick<ContainerIdentity, 'root' | 'id'>[] =>
  indexedBelow(join(runDir, 'containers'), '/');

function indexedBelow(directory: string, root: string): Pick<ContainerIdentity, 'root' | 'id'>[] {
  try {
    // Not `recursive`: that goes on through the symlinks.
    return fs.readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
      if (entry.isSymbolicLink()) return [{ root, id: entry.name }];
      return indexedBelow(join(directory, entry.name), join(root, entry.name));
    });
  } catch {
    return [];
  }
}
