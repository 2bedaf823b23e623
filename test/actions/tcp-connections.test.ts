import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { hasTcpConnections, isConnected } from '../../src/actions/tcp-connections.ts';

const titles = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n';
const socket = (state: string) =>
  `   0: 0100007F:1B58 0100007F:C0DE ${state} 00000000:00000000 00:00000000 0 0\n`;

describe('isConnected', () => {
  it.each([
    ['nothing', '', false],
    ['no socket', titles, false],
    ['listening sockets, and some that have been closed', `${titles}${socket('0A')}${socket('06')}`, false],
    ['an established connection', `${titles}${socket('0A')}${socket('01')}`, true],
    ['one that is being made', `${titles}${socket('02')}`, true],
    ['one that a client is making', `${titles}${socket('03')}`, true],
    ['one that the peer has closed', `${titles}${socket('08')}`, true],
  ])('should tell, of %s, whether there is a connection', (_, table, expected) => {
    expect(isConnected(table)).toBe(expected);
  });
});

describe('hasTcpConnections', () => {
  it('should see a connection of this process', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    onTestFinished(() => void client.destroy());
    await once(client, 'connect');
    expect(hasTcpConnections([process.pid])).toBe(true);
  });

  it('should pass over processes that have ended', () => {
    const { pid } = spawnSync('true');
    expect(hasTcpConnections([pid])).toBe(false);
  });
});
