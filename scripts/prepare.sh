#!/bin/sh
# Brings a checkout to where its programs run: npm packages (Node 24 among them), what the host needs, and dist/.
# Says what it does, does only what is missing, and may be run as often as you like.
#
#   scripts/prepare.sh [--tests]
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "==> $*"; }

# npm writes this file last: where it is older than the lock file, an install is missing or was cut short.
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  say "installing the npm packages"
  # Not `npm ci`: it refuses a registry that lacks a package for some platform that is not this one.
  npm install --no-save --no-audit --no-fund --loglevel=error
  touch node_modules/.package-lock.json
fi

if [ "$(id -u)" = 0 ]; then
  say "looking after the host's packages (scripts/setup-host.sh $*)"
  scripts/setup-host.sh "$@"
else
  say "not root: the host's packages stay as they are (needed: sudo scripts/setup-host.sh $*)"
fi

say "building dist/"
PATH=$PWD/node_modules/.bin:$PATH
export PATH
node scripts/build.mjs
