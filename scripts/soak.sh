#!/bin/sh
# npm run soak [-- N]: N containers (200) are checkpointed and restored together on this host.
set -eu
cd "$(dirname "$0")/.."
scripts/prepare.sh
PATH=$PWD/node_modules/.bin:$PATH
export PATH
exec node --disable-warning=ExperimentalWarning scripts/soak.ts "$@"
