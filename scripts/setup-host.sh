#!/bin/sh
# Installs what Tardis needs on a Debian 12 or 13 host: runc, containerd, Docker, busybox-static,
# iproute2, util-linux, tar and a CRIU whose `criu check` succeeds. May be run as often as you like.
#
#   scripts/setup-host.sh            the host's needs
#   scripts/setup-host.sh --tests    and what the test suite builds its workloads with
set -eu

say() { printf 'setup-host: %s\n' "$*"; }
stop() { printf 'setup-host: %s\n' "$*" >&2; exit 1; }

want="runc containerd docker.io busybox-static iproute2 util-linux tar attr"
criu_home=${TARDIS_CRIU_HOME:-/usr/local/lib/tardis-criu}
criu_command=/usr/local/sbin/criu

for flag in "$@"; do
  case $flag in
    --tests) want="$want mmdebstrap gcc libc6-dev" ;;
    *) stop "unknown option '$flag'; expected none or --tests" ;;
  esac
done

[ "$(id -u)" = 0 ] || stop "must run as root (found uid $(id -u)); try: sudo $0"

release=unknown
[ -r /etc/os-release ] && release=$(. /etc/os-release && printf '%s %s' "${ID:-?}" "${VERSION_CODENAME:-?}")
case $release in
  "debian bookworm") next_release=trixie ;;
  "debian trixie") next_release=forky ;;
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

# CRIU caches what the kernel can do; after an upgrade of either the cache lies (field experience).
criu_works() {
  command -v criu >/dev/null 2>&1 || return 1
  hash -r
  rm -f /run/criu.kdat
  criu check >/dev/null 2>&1
}

# Debian's own sources with the suite names of the next release: the mirror stays whatever the host uses.
next_sources() {
  found=
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -r "$file" ] || continue
    grep -Eq "^Suites:.*(^|[[:space:]])$1([[:space:]-]|\$)" "$file" || continue
    found=yes
    sed -e '/^#/d' -e "s/\\b$1\\b/$2/g" "$file"
    printf '\n'
  done
  [ -n "$found" ] && return
  { cat /etc/apt/sources.list; cat /etc/apt/sources.list.d/*.list; } 2>/dev/null |
    grep -E "^deb .*[[:space:]]$1([[:space:]-]|\$)" | sed "s/\\b$1\\b/$2/g"
}

install_private_criu() {
  if ! command -v mmdebstrap >/dev/null 2>&1; then
    apt_update
    say "installing mmdebstrap"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
  fi
  case $(uname -m) in
    x86_64) loader=usr/lib64/ld-linux-x86-64.so.2 libs=usr/lib/x86_64-linux-gnu ;;
    aarch64) loader=usr/lib/ld-linux-aarch64.so.1 libs=usr/lib/aarch64-linux-gnu ;;
    *) stop "has no private CRIU for $(uname -m); install CRIU 4.1 or newer by hand" ;;
  esac
  say "this kernel needs a newer CRIU: taking $next_release's into $criu_home (the host's libraries stay as they are)"
  fresh=$criu_home.new.$$
  trap 'rm -rf "$fresh"' EXIT
  rm -rf "$fresh"
  next_sources "${release#debian }" "$next_release" |
    mmdebstrap --quiet --variant=extract --include=criu "$next_release" "$fresh" - ||
    stop "could not fetch CRIU of $next_release with this host's apt sources"
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

if ! criu_works; then
  # The host's own CRIU first: on most kernels it is enough.
  if ! command -v criu >/dev/null 2>&1; then
    apt_update
    say "installing criu"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends criu >/dev/null || say "this Debian has no criu package"
  fi
  criu_works || install_private_criu
  criu_works || { criu check >&2 || :; stop "'criu check' still fails (its words are above): this kernel cannot run CRIU as it is"; }
fi

say "criu check: $(criu check 2>&1 | tail -n 1)"
for program in "runc --version" "containerd --version" "dockerd --version" "criu --version" "tar --version" "busybox" "ip -V" "flock --version"; do
  # shellcheck disable=SC2086 # a command and its flag
  say "$(command -v ${program%% *}): $($program 2>&1 | head -n 1)"
done
