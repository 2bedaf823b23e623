/**
 * A config.json as containerd's CRI plugin writes it for Kubernetes, with nulls where Go has an empty pointer, and
 * numbers that JavaScript cannot hold.
 */
export const containerdSpec = (): string => `{
  "ociVersion": "1.2.0",
  "process": {
    "user": {"uid": 4294967295, "gid": 65534, "additionalGids": [65534]},
    "args": ["/bin/job", "--all"],
    "env": ["PATH=/bin", "TARDIS_ENABLE=1", "TARDIS_CHECKPOINT_KEY=job-7"],
    "cwd": "/work",
    "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]},
    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 18446744073709551615, "soft": 1024}],
    "noNewPrivileges": true, "apparmorProfile": "cri-containerd.apparmor.d", "oomScoreAdj": 1000
  },
  "root": {"path": "rootfs"},
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/etc/hosts", "type": "bind", "source": "/var/lib/kubelet/pods/x/etc-hosts", "options": ["rbind"]},
    {"destination": "/dev/shm", "type": "bind", "source": "/run/containerd/shm", "options": null}
  ],
  "hooks": null,
  "annotations": {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "f00"},
  "linux": {
    "sysctl": null,
    "resources": {
      "devices": [{"allow": false, "access": "rwm", "major": null, "minor": null}],
      "memory": {"limit": 9223372036854775807, "swap": -1, "kernel": null},
      "cpu": {"shares": 2, "quota": 18446744073709551614, "period": 100000}
    },
    "cgroupsPath": "kubepods-burstable-pod1.slice:cri-containerd:f00",
    "namespaces": [
      {"type": "pid"}, {"type": "ipc", "path": "/proc/7/ns/ipc"}, {"type": "uts", "path": "/proc/7/ns/uts"},
      {"type": "mount"}, {"type": "network", "path": "/proc/7/ns/net"}
    ],
    "maskedPaths": ["/proc/acpi"], "seccomp": null
  }
}
`;
