#!/bin/sh
# npm run bench [-- SUITE...]: measures Tardis beside runc, containerd and podman on this machine.
set -eu
cd "$(dirname "$0")/.."
scripts/prepare.sh --bench
PATH=$PWD/node_modules/.bin:$PATH
export PATH
exec node --disable-warning=ExperimentalWarning bench/run.ts "$@"
