#!/bin/sh
# npm run demo: a container dies, and its numbers continue in another one.
set -eu
cd "$(dirname "$0")/.."
scripts/prepare.sh
PATH=$PWD/node_modules/.bin:$PATH
export PATH
exec node --disable-warning=ExperimentalWarning scripts/demo.ts
