import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import {
  afterAll,
  beforeAll,
  beforeEach,
  describe,
  expect,
  onTestFailed,
  onTestFinished,
  test,
} from 'vitest';
import type { Container, ContainerSpec, Engine } from '../support/engine.ts';
import { engineNames, engines } from '../support/engines.ts';
import { debianImage } from '../support/images.ts';
import { enabled } from '../support/jobs.ts';
import { fixturesDir } from '../support/paths.ts';
import { requireRealStack } from '../support/requires.ts';
import { type Stack, startStack } from '../support/stack.ts';

// Of the range for benchmarks (RFC 2544), which no host has in use.
const subnet = '198.18.77';
const gateway = `${subnet}.1`;

describe.skipIf(requireRealStack({ docker: true }).skip)('a job with a network', () => {
  let stack: Stack;
  let image: string;
  /** A server outside every container, for the containers on the bridge. */
  let outside: Server;

  beforeAll(async () => {
    stack = await startStack({ docker: true });
    image = await debianImage(stack);
    await stack.docker(['network', 'create', '--subnet', `${subnet}.0/24`, '--gateway', gateway, 'bridged']);
    outside = createServer((client) => void client.on('error', () => {}).pipe(client));
    await once(outside.listen(0, '0.0.0.0'), 'listening');
  });
  afterAll(async () => {
    outside?.close();
    await stack?.stop();
  });
  beforeEach(() => onTestFailed(() => console.log(stack.logs())));

  const start = (
    id: string,
    key: string,
    file: string,
    more: Partial<ContainerSpec> = {},
    engine: Engine['name'] = 'docker',
  ) =>
    engines[engine](stack).run({
      id,
      image,
      args: ['python3', `/jobs/${file}`],
      binds: [{ source: join(fixturesDir, 'jobs'), destination: '/jobs', readOnly: true }],
      ...more,
      env: enabled(key, more.env),
    });
  const bridged = (last: number, peer: string, port: number): Partial<ContainerSpec> => ({
    network: 'bridged',
    env: { PORT: String(port), PEER: peer, LINKS: 'lo eth0' },
    flags: ['--ip', `${subnet}.${last}`],
  });
  /** Ends a job in its life of that number, with a checkpoint if another life follows; its last tick. */
  const end = async (container: Container, life: number, { checkpoint }: { checkpoint: boolean }) => {
    if (checkpoint) await container.checkpoint({ exit: true });
    if (checkpoint) await container.waitForExit();
    const last = expectSound(container, life);
    await container.remove();
    return last;
  };

  // Docker brings a container's loopback up by itself, containerd does not.
  test.each(engineNames)(
    'should reach itself from the first instruction after a restore on, with %s',
    async (name) => {
      const more = { network: 'none', env: { PORT: '7000' } };
      const ask = async (container: Container) => {
        const script = `import socket; lines = socket.create_connection(("127.0.0.1", 7000)).makefile("rw")
lines.write("count\\n"); lines.flush(); print(lines.readline().strip())`;
        return (await container.exec(['python3', '-c', script])).stdout;
      };
      let last = 0;
      for (let life = 1; life <= 2; life++) {
        const container = await start(`none-${name}-${life}`, `none-${name}`, 'network_job.py', more, name);
        await container.waitForLine(new RegExp(`^tick ${last + 5} `));
        expect(await ask(container)).toBe(`served ${life}`);
        last = await end(container, life, { checkpoint: life < 2 });
      }
    },
  );

  test.each([
    { network: 'host', addresses: ['127.0.0.1', '127.0.0.1'] },
    { network: 'bridged', addresses: [`${subnet}.11`, `${subnet}.12`] },
  ])(
    'should serve and reach others on $network, from the first instruction after a restore on',
    async ({ network, addresses }) => {
      const port = await freePort();
      const peer = `${network === 'host' ? '127.0.0.1' : gateway}:${(outside.address() as AddressInfo).port}`;
      let last = 0;
      let served = 0;
      for (const [i, address] of addresses.entries()) {
        const life = i + 1;
        // Its copy listens on the same addresses, while the job does.
        const verified = { TARDIS_VERIFY_BY_RESTORE: '1' };
        const more =
          network === 'host'
            ? { network, env: { PORT: String(port), PEER: peer, ...verified } }
            : bridged(10 + life, peer, port);
        const container = await start(`${network}-${life}`, network, 'network_job.py', more);
        await container.waitForLine(new RegExp(`^tick ${last + 5} `));
        const client = await clientOf(address, port);
        expect(await client.ask('count')).toBe(`served ${++served}`);

        await container.checkpoint();
        expect(await client.ask('count')).toBe(`served ${++served}`);
        const { tick } = reportsOf(container).at(-1) as Report;
        await container.waitForLine(new RegExp(`^tick ${tick + 3} `));

        last = await end(container, life, { checkpoint: life < addresses.length });
        await client.closed;
      }
      expect(served).toBe(2 * addresses.length);
    },
  );

  test('should restore two jobs of one bridge one after another, each finding the other at once', async () => {
    const port = 7000;
    const outsidePeer = `${gateway}:${(outside.address() as AddressInfo).port}`;
    const jobs = {
      server: bridged(21, outsidePeer, port),
      client: bridged(22, `${subnet}.21:${port}`, port),
    };
    const server = await start('server-1', 'server', 'network_job.py', jobs.server);
    await server.waitForLine(/^tick 3 /);
    const client = await start('client-1', 'client', 'network_job.py', jobs.client);
    await client.waitForLine(/^tick 3 /);
    const clientLast = await end(client, 1, { checkpoint: true });
    const serverLast = await end(server, 1, { checkpoint: true });

    const nextServer = await start('server-2', 'server', 'network_job.py', jobs.server);
    await nextServer.waitForLine(new RegExp(`^tick ${serverLast + 3} `));
    const nextClient = await start('client-2', 'client', 'network_job.py', jobs.client);
    await nextClient.waitForLine(new RegExp(`^tick ${clientLast + 5} `));
    await end(nextClient, 2, { checkpoint: false });
    await end(nextServer, 2, { checkpoint: false });
  });

  test('should be checkpointed with clients in its queue that it has not accepted, and accept anew', async () => {
    const first = await start('backlog-1', 'backlog', 'backlog_job.py');
    await first.waitForLine(/^tick 3$/);
    await first.checkpoint();
    const before = first.lines().length;
    await first.waitForLine(new RegExp(`^tick ${before + 3}$`));
    expect(first.lines().filter((line) => !line.startsWith('tick '))).toEqual([]);
    await first.checkpoint({ exit: true });
    await first.waitForExit();
    await first.remove();

    const second = await start('backlog-2', 'backlog', 'backlog_job.py');
    await second.waitForLine(/^accepted/);
    expect(second.lines().filter((line) => !line.startsWith('tick '))).toEqual(['lost 3', 'accepted 3']);
    await second.remove();
  });
});

type Report = { tick: number; connections: number; asked: number; broken: number };

function reportsOf(container: Container): Report[] {
  return container.lines().flatMap((line) => {
    const numbers = /^tick (\d+) over (\d+) asked (\d+) broken (\d+)$/.exec(line)?.slice(1).map(Number);
    if (!numbers) return [];
    const [tick = 0, connections = 0, asked = 0, broken = 0] = numbers;
    return [{ tick, connections, asked, broken }];
  });
}

/**
 * Nothing but ticks, none lost and none twice; its own client lost its connection with every restore and counted
 * on over a new one; and no more connections broke than checkpoints found open. Its last tick.
 */
function expectSound(container: Container, life: number): number {
  expect(container.lines().filter((line) => !line.startsWith('tick '))).toEqual([]);
  const reports = reportsOf(container);
  const [first, last] = [reports[0], reports.at(-1)] as [Report, Report];
  expect(reports.map(({ tick }) => tick)).toEqual(Array.from(reports, (_, i) => first.tick + i));
  expect(last.connections).toBe(life);
  expect(last.asked).toBeGreaterThan(first.asked);
  expect(last.broken).toBeLessThan(life);
  return last.tick;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** A client outside the container, with one connection for as long as that lasts. */
async function clientOf(address: string, port: number) {
  const socket: Socket = connect(port, address);
  onTestFinished(() => void socket.destroy());
  await once(socket, 'connect');
  const closed = once(
    socket.on('error', () => {}),
    'close',
  );
  const lines = createInterface(socket)[Symbol.asyncIterator]();
  return {
    closed,
    async ask(word: string): Promise<string> {
      socket.write(`${word}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error(`the server closed the connection instead of answering ${word}`);
      return value;
    },
  };
}
