#!/bin/sh
# npm test: everything that must hold, on a fresh machine as on an old one.
set -eu
cd "$(dirname "$0")/.."
scripts/prepare.sh --tests
PATH=$PWD/node_modules/.bin:$PATH
export PATH

step() {
  printf '==> %s\n' "$*"
  "$@"
}
step biome check --error-on-warnings .
step tsc --noEmit
step node scripts/diagrams.mjs --check
step node --disable-warning=ExperimentalWarning bench/document.ts --check
step vitest run --project unit --maxWorkers 2
# Each file has a containerd of its own, and waits for its jobs most of the time: two at once.
step vitest run --project e2e --maxWorkers 2
step vitest run --project alone
