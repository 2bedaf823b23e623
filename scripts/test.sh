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
# One after the other: the end-to-end tests need both cores to themselves.
step vitest run --project unit
step vitest run --project e2e
