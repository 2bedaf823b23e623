#!/bin/sh
# Finds out whether the criu on the PATH dumps and restores a container on this kernel and CPU: with a real container
# that listens on a TCP port, through runc, as Tardis does it.
#
#   scripts/probe-criu.sh
#
# Exit status: 0 it works; 1 it does not; 2 it could not be tried, because runc runs no container here. On 1 and 2 one
# line on stdout says why. Everything that is started is ended and removed, a frozen container and a CRIU that hangs too.
#
# `criu check` alone says too little: CRIU before 4.2 passes it on Linux 6.16 and later and then cannot dump a TCP
# socket (criu#2718); CRIU 4.1 passes it on a CPU without working hardware breakpoints and then waits in wait4(2) for
# ever. (A process of this shell's would not do instead of a container: it holds files, a session and mounts from
# outside, which CRIU rightly refuses.)
set -u

# Seconds that a single runc or criu may take. A dump and a restore of this container take well below one.
limit=${TARDIS_PROBE_SECONDS:-20}
case $limit in '' | *[!0-9]* | 0) echo "TARDIS_PROBE_SECONDS is '$limit': expected whole seconds, 1 or more"; exit 2 ;; esac

probe=$(mktemp -d)
id=tardis-probe-$$

# Runs a command and all that it starts for $limit seconds at most: timeout(1) signals its whole process group, which
# runc and its criu belong to. Its status is 124 then, or 137 where only SIGKILL helped.
limited() {
  timeout -k 2 "$limit" "$@"
}

# Ends a container whatever state it is in: a task of a frozen v1 cgroup does not die before it is thawed.
end_container() {
  pid=$(cat "$probe/$1.pid" 2>/dev/null) || pid=
  if [ -n "$pid" ] && [ -r "/proc/$pid/cgroup" ]; then
    while IFS=: read -r _ controllers path; do
      case $controllers in
        freezer) (echo THAWED >"/sys/fs/cgroup/freezer$path/freezer.state") 2>/dev/null ;;
        '') (echo 0 >"/sys/fs/cgroup$path/cgroup.freeze") 2>/dev/null ;;
      esac
    done <"/proc/$pid/cgroup"
  fi
  limited runc --root "$probe/run" delete --force "$1" >/dev/null 2>&1
}

# A container's processes may outlive a runc that was killed, or one that says that it has failed: their cgroup tells them.
end_strays() {
  for cgroup in $(grep -ls "/$id-" /proc/[0-9]*/cgroup); do
    stray=${cgroup%/cgroup}
    kill -9 "${stray#/proc/}" 2>/dev/null
  done
}

clean_up() {
  end_container "$id-dumped"
  end_container "$id-restored"
  end_strays
  sed -n "s|^[^ ]* [^ ]* [^ ]* [^ ]* \($probe/[^ ]*\) .*|\1|p" /proc/self/mountinfo | sort -r |
    while read -r mount; do umount -l "$mount" 2>/dev/null; done
  for cgroup in /sys/fs/cgroup/*/"$id"-* /sys/fs/cgroup/"$id"-*; do
    [ -d "$cgroup" ] && rmdir "$cgroup" 2>/dev/null
  done
  rm -rf "$probe"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

fail() {
  printf '%s\n' "$*" | tr '\n' ' ' | sed 's/ *$//'
  echo
  exit 1
}
untried() {
  printf '%s\n' "$*" | tr '\n' ' ' | sed 's/ *$//'
  echo
  exit 2
}

# Why a runc command has failed: its status, CRIU's last errors, else CRIU's last line, else runc's words.
reason() {
  status=$1 log=$2
  case $status in 124 | 137) printf 'no end within %s s; ' "$limit" ;; esac
  errors=$(grep -h 'Error' "$log" 2>/dev/null | grep -v -e RLIMIT_NOFILE -e FAILED | tail -n 2)
  if [ -n "$errors" ]; then
    printf '%s' "$errors"
  elif [ -s "$log" ]; then
    printf "CRIU's last line: %s" "$(tail -n 1 "$log")"
  else
    printf '%s' "$(tail -n 2 "$probe/said")"
  fi
}

# Port 7000, as /proc/net/tcp shows it, in the state LISTEN.
listens() {
  grep -q ':1B58 .* 0A ' "/proc/$1/net/tcp" "/proc/$1/net/tcp6" 2>/dev/null
}

command -v criu >/dev/null 2>&1 || fail "no criu on the PATH"
# CRIU caches what the kernel can do; after an upgrade of either the cache lies.
rm -f /run/criu.kdat
limited criu check >"$probe/said" 2>&1
status=$?
[ $status = 0 ] || fail "criu check failed: $(reason $status /dev/null)"

# Without CRIU's care for cgroups: where a hierarchy is not runc's it would take those of all other containers into its
# image, and not restore it when one of them is gone. runc 1.1 has no flag for this; the annotation is read by runc.
echo 'manage-cgroups ignore' >"$probe/criu.conf"
for bundle in dumped restored; do
  mkdir -p "$probe/$bundle/rootfs"
  cp "$(command -v busybox)" "$probe/$bundle/rootfs/busybox" || untried "no busybox to run in a container"
  cat >"$probe/$bundle/config.json" <<END
{ "ociVersion": "1.0.2", "annotations": { "org.criu.config": "$probe/criu.conf" },
  "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/busybox", "nc", "-l", "-p", "7000"] },
  "root": { "path": "rootfs" },
  "mounts": [
    { "destination": "/proc", "type": "proc", "source": "proc" },
    { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" } ],
  "linux": { "cgroupsPath": "/$id-$bundle", "namespaces": [
    { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" } ] } }
END
done

# Its standard streams are no files of this host: CRIU cannot dump such.
limited runc --root "$probe/run" --log "$probe/said" run --detach --bundle "$probe/dumped" \
  --pid-file "$probe/$id-dumped.pid" "$id-dumped" </dev/null >/dev/null 2>&1 || untried "runc runs no container here: $(tail -n 3 "$probe/said")"
pid=$(cat "$probe/$id-dumped.pid")
tries=0
until listens "$pid"; do
  tries=$((tries + 1))
  [ $tries -gt 200 ] && untried "a container that should listen on port 7000 does not"
  sleep 0.05
done

limited runc --root "$probe/run" checkpoint --image-path "$probe/image" \
  --work-path "$probe/dump" "$id-dumped" </dev/null >"$probe/said" 2>&1
status=$?
[ $status = 0 ] || fail "it cannot dump a container that listens: $(reason $status "$probe/dump/dump.log")"

limited runc --root "$probe/run" --log "$probe/said" restore --detach --image-path "$probe/image" \
  --work-path "$probe/restore" --bundle "$probe/restored" --pid-file "$probe/$id-restored.pid" "$id-restored" \
  </dev/null >/dev/null 2>&1
status=$?
[ $status = 0 ] || fail "it cannot restore what it has dumped: $(reason $status "$probe/restore/restore.log")"
pid=$(cat "$probe/$id-restored.pid" 2>/dev/null) || pid=
[ -n "$pid" ] && listens "$pid" || fail "it says that it has restored a container, and nothing listens there"
exit 0
