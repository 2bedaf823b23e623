import fs from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { bundleFromIndex, indexEntryOf } from '../../actions/container-index.ts';
import { Problem, reasonOf } from '../../actions/problem.ts';
import { stateFileOf } from '../../actions/state-file.ts';

const wayOut = 'see tardis inspect --help';

/**
 * Finds the state file that an operator means: a container's id (in the index), its bundle, or the file itself.
 * A word without a slash is an id first, and a path only where the index does not know it.
 *
 * @param runDir called only where the index is asked: a path is found on a host without settings too.
 * @param root runc's state directory; absolute or relative to `cwd`. Without it, an id is looked for in every one.
 * @returns the state file's absolute path; that it can be read is not promised.
 * @throws Problem `not-found` where there is no such container, `ambiguous` where several runc roots have one of
 * that id; what `runDir` throws.
 */
export function findState(
  target: string,
  { cwd, root, runDir }: { readonly cwd: string; readonly root?: string; readonly runDir: () => string },
): string {
  const path = resolve(cwd, target);
  if (isId(target)) {
    const bundle = bundleOf(target, runDir(), root === undefined ? undefined : resolve(cwd, root));
    if (bundle !== undefined) return indexedState(target, bundle);
    if (root !== undefined || !fs.existsSync(path)) throw unknownId(target, path, runDir(), root);
  }
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (!stat) throw new Problem('not-found', `found no file or directory ${path}; ${expectation}`);
  if (!stat.isDirectory()) return path;
  if (fs.existsSync(stateFileOf(path))) return stateFileOf(path);
  throw new Problem(
    'not-found',
    `found no tardis.json in ${path}: no container with TARDIS_ENABLE has been created there; ${expectation}`,
  );
}

const expectation = `expected a container's id, its bundle, or a state file; ${wayOut}`;

const isId = (target: string): boolean => target !== '.' && target !== '..' && /^[^/]+$/.test(target);

function indexedState(id: string, bundle: string): string {
  const file = stateFileOf(bundle);
  if (fs.existsSync(file)) return file;
  throw new Problem(
    'not-found',
    `the index knows container ${JSON.stringify(id)}, but there is no ${file}: its bundle was removed without a ` +
      `delete; ${expectation}`,
  );
}

function unknownId(id: string, path: string, runDir: string, root: string | undefined): Problem {
  const index = join(runDir, 'containers');
  const places =
    root === undefined
      ? `under ${index}, and no file or directory ${path}`
      : `for the runc root ${root} in ${index}`;
  return new Problem(
    'not-found',
    `found no container ${JSON.stringify(id)}: no entry ${places}; ${expectation}`,
  );
}

function bundleOf(id: string, runDir: string, root: string | undefined): string | undefined {
  if (root !== undefined) return bundleFromIndex(runDir, root, id);
  const roots = rootsKnowing(id, runDir);
  if (roots.length > 1) {
    throw new Problem(
      'ambiguous',
      `${roots.length} containers are called ${JSON.stringify(id)}, with the runc roots ${roots.join(', ')}; ` +
        `name one with --root, or the bundle`,
    );
  }
  return roots[0] === undefined ? undefined : bundleFromIndex(runDir, roots[0], id);
}

/** The runc roots that have an indexed container of that id, sorted. */
function rootsKnowing(id: string, runDir: string): string[] {
  const index = indexEntryOf(runDir, '', '');
  try {
    return fs
      .readdirSync(index, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isSymbolicLink() && entry.name === id)
      .map((entry) => join('/', relative(index, entry.parentPath)))
      .sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new Problem('index', `cannot read the index ${index}: ${reasonOf(error)}`, { cause: error });
  }
}
