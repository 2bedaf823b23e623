import { readFileSync, readlinkSync } from 'node:fs';

/** The states, in /proc/PID/net/tcp (proc_pid_net(5)), of sockets that CRIU dumps without further ado. */
const unconnected: ReadonlySet<string> = new Set(['06', '07', '0A']); // TIME_WAIT, CLOSE, LISTEN

/** Whether there is a TCP connection, made or being made, in the network namespaces of these processes. */
export function hasTcpConnections(pids: readonly number[]): boolean {
  const seen = new Set<string>();
  return pids.some((pid) => {
    const namespace = attempt(() => readlinkSync(`/proc/${pid}/ns/net`));
    if (namespace === '' || seen.has(namespace)) return false;
    seen.add(namespace);
    return ['tcp', 'tcp6'].some((table) =>
      isConnected(attempt(() => readFileSync(`/proc/${pid}/net/${table}`, 'utf8'))),
    );
  });
}

/** Whether a table of sockets, with a line of titles above, names a connected one; its state is the fourth word. */
export function isConnected(table: string): boolean {
  const lines = table.split('\n').slice(1).filter(Boolean);
  return lines.some((line) => !unconnected.has(line.trim().split(/\s+/)[3] ?? ''));
}

/** A process that has just ended, and a kernel without IPv6, have nothing to tell. */
function attempt(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}
