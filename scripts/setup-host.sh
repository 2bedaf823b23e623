#!/bin/sh
# Installs what Tardis needs on a Debian 12 or 13 host: runc, containerd, Docker, busybox-static,
# iproute2, util-linux, tar and a CRIU that dumps and restores a container. May be run as often as you like.
#
#   scripts/setup-host.sh            the host's needs
#   scripts/setup-host.sh --tests    and what the test suite builds its workloads with
#   scripts/setup-host.sh --bench    and what the benchmarks measure with, and beside
set -eu

say() { printf 'setup-host: %s\n' "$*"; }
stop() { printf 'setup-host: %s\n' "$*" >&2; exit 1; }

want="runc containerd docker.io busybox-static iproute2 util-linux tar attr"
criu_home=${TARDIS_CRIU_HOME:-/usr/local/lib/tardis-criu}
criu_command=${TARDIS_CRIU_COMMAND:-/usr/local/sbin/criu}

for flag in "$@"; do
  case $flag in
    --tests) want="$want mmdebstrap gcc libc6-dev strace bindfs fuse3 e2fsprogs" ;;
    --bench) want="$want hyperfine openssl time podman crun" ;;
    *) stop "unknown option '$flag'; expected none, --tests, or --bench" ;;
  esac
done

[ "$(id -u)" = 0 ] || stop "must run as root (found uid $(id -u)); try: sudo $0"

release=unknown
[ -r /etc/os-release ] && release=$(. /etc/os-release && printf '%s %s' "${ID:-?}" "${VERSION_CODENAME:-?}")
case $release in
  "debian bookworm") later_releases="trixie forky" ;;
  "debian trixie") later_releases=forky ;;
  *) stop "knows Debian 12 and 13 only (found: $release). Install by hand: $want, Docker's client, and CRIU 4.1 or newer for which 'criu check' succeeds; then run Tardis as usual." ;;
esac
[ "$release" = "debian trixie" ] && want="$want docker-cli"

# apt's first look-up on a fresh machine needs lists; later runs that miss nothing touch no network.
apt_updated=
apt_update() {
  [ -n "$apt_updated" ] && return
  say "reading the package lists"
  apt-get update -qq || say "some package lists could not be read; going on with those that could"
  apt_updated=yes
}

missing=
for package in $want; do
  case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || :) in
    ii*) ;;
    *) missing="$missing $package" ;;
  esac
done
if [ -n "$missing" ]; then
  apt_update
  say "installing$missing"
  # shellcheck disable=SC2086 # a list of package names
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# Whether the criu on the PATH dumps and restores (scripts/probe-criu.sh). A CRIU that does not is named once, with
# the reason, which also stays in $why. Where no container can be run, `criu check` decides alone.
criu_works() {
  hash -r
  command -v criu >/dev/null 2>&1 || { why="no criu on the PATH"; return 1; }
  status=0
  why=$("$(dirname "$0")/probe-criu.sh") || status=$?
  case $status in
    0) return 0 ;;
    2) say "warning: no dump was tried, $why"; return 0 ;;
  esac
  say "rejected $(command -v criu) ($(timeout -k 2 20 criu --version 2>&1 | head -n 1)): $why"
  return 1
}

# The host's own apt sources with the name of a later release, main archive only (a release to come has no
# security archive): the mirror stays whatever the host uses.
next_sources() {
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -r "$file" ] || continue
    sed '/^#/d' "$file" | awk -v here="$1" -v there="$2" '
      BEGIN { RS = ""; ORS = "\n\n" }
      { suites = "\n" $0 "\n" }
      suites ~ "\nSuites:[^\n]*[ \t]" here "[ \t\n]" { sub(/Suites:[^\n]*/, "Suites: " there); print }'
  done
  { cat /etc/apt/sources.list; cat /etc/apt/sources.list.d/*.list; } 2>/dev/null |
    sed -n "s/^\(deb .*[[:space:]]\)$1\([[:space:]].*\)/\1$2\2/p"
}

install_private_criu() {
  suite=$1
  if ! command -v mmdebstrap >/dev/null 2>&1; then
    apt_update
    say "installing mmdebstrap"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
  fi
  case $(uname -m) in
    x86_64) loader=usr/lib64/ld-linux-x86-64.so.2 libs=usr/lib/x86_64-linux-gnu ;;
    aarch64) loader=usr/lib/ld-linux-aarch64.so.1 libs=usr/lib/aarch64-linux-gnu ;;
    *) stop "has no private CRIU for $(uname -m); install CRIU 4.2 or newer by hand" ;;
  esac
  say "this kernel needs a newer CRIU: trying $suite's, in $criu_home (the host's libraries stay as they are)"
  fresh=$criu_home.new.$$
  trap 'rm -rf "$fresh"' EXIT
  if ! extract_criu "$suite" && ! {
    say "not to be had like that; once more, accepting package lists past their date (a mirror that stands still), signatures still checked"
    extract_criu "$suite" --aptopt='Acquire::Check-Valid-Until "false"'
  }; then
    say "$suite's CRIU cannot be fetched with this host's apt sources"
    return 1
  fi
  rm -rf "$criu_home"
  mv "$fresh" "$criu_home"
  trap - EXIT
  {
    echo '#!/bin/sh'
    echo "exec $criu_home/$loader --library-path $criu_home/$libs $criu_home/usr/sbin/criu \"\$@\""
  } >"$criu_command.new"
  chmod 755 "$criu_command.new"
  mv "$criu_command.new" "$criu_command"
}

extract_criu() {
  rm -rf "$fresh"
  suite=$1
  shift
  next_sources "${release#debian }" "$suite" |
    mmdebstrap --quiet --variant=extract --include=criu "$@" "$suite" "$fresh" - 2>/dev/null
}

works=
if criu_works; then
  works=yes
elif ! command -v criu >/dev/null 2>&1; then
  # The host's own CRIU first: on most kernels it is enough.
  apt_update
  say "installing criu"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends criu >/dev/null || say "this Debian has no criu package"
  criu_works && works=yes
fi
for suite in $later_releases; do
  [ -n "$works" ] && break
  install_private_criu "$suite" && criu_works && works=yes
done
if [ -z "$works" ]; then
  timeout -k 2 20 criu check >/dev/null 2>&1 || stop "found no CRIU that works on Linux $(uname -r) ($why); install CRIU 4.2 or newer by hand"
  say "warning: 'criu check' succeeds, but $why"
  say "warning: going on; checkpoints on this host may fail, and their containers run on"
fi

say "criu check: $(criu check 2>&1 | tail -n 1)"
for program in "runc --version" "containerd --version" "dockerd --version" "criu --version" "tar --version" "busybox" "ip -V" "flock --version"; do
  # shellcheck disable=SC2086 # a command and its flag
  say "$(command -v ${program%% *}): $($program 2>&1 | head -n 1)"
done
