import type { AnyMachineSnapshot, EventObject } from 'xstate';
import type { ContainerEvent } from '../../src/machines/container-context.ts';
import type {
  CheckpointRequest,
  ContainerIdentity,
  Failure,
  ImageInMaking,
  RuncCall,
  Shim,
} from '../../src/machines/vocabulary.ts';
import { endingsOf } from './machine-paths.ts';

export const container: ContainerIdentity = {
  id: 'job',
  root: '/run/runc',
  bundle: '/bundles/job',
  key: 'job-key',
  imageRoot: '/images',
};

export const image: ImageInMaking = { generation: 3, directory: '/images/job-key/3', epoch: 1 };

export const callOf = (...argv: string[]): RuncCall => ({
  argv,
  globals: [],
  switches: [],
  restoreFlags: [],
});

/** One of containerd's shims, which calls so many milliseconds after it was first seen. */
export const shimAt = (ms: number, pid = 77): Shim => ({ pid, startTime: 1_000, at: 1_700_000_000_000 + ms });

/** A call of an engine's: its shim gives it. */
export const engineCallOf = (shim: Shim, ...argv: string[]): RuncCall => ({ ...callOf(...argv), shim });

export const requestOf = (leaveRunning: boolean): CheckpointRequest => ({
  leaveRunning,
  imagePath: '/caller/checkpoint',
  flags: [],
});

export const failure: Failure = { message: 'no space left', code: 'ENOSPC' };

const call = callOf('runc');
const engineCall = engineCallOf(shimAt(0), 'runc');

/** Every command and every observation, by the name that the tests call it. */
export const events = {
  CREATE: { type: 'CREATE', call },
  RUN: { type: 'RUN', call, detach: true },
  'RUN foreground': { type: 'RUN', call, detach: false },
  RESTORE: { type: 'RESTORE', call, detach: true },
  'RESTORE foreground': { type: 'RESTORE', call, detach: false },
  START: { type: 'START', call },
  PAUSE: { type: 'PAUSE', call },
  'PAUSE by an engine': { type: 'PAUSE', call: engineCall },
  RESUME: { type: 'RESUME', call },
  KILL: { type: 'KILL', call },
  DELETE: { type: 'DELETE', call },
  CHECKPOINT: { type: 'CHECKPOINT', call, request: requestOf(false) },
  'CHECKPOINT leaving': { type: 'CHECKPOINT', call, request: requestOf(true) },
  'CHECKPOINT by an engine': { type: 'CHECKPOINT', call: engineCall, request: requestOf(false) },
  'OBSERVED created': { type: 'OBSERVED', status: 'created' },
  'OBSERVED running': { type: 'OBSERVED', status: 'running' },
  'OBSERVED paused': { type: 'OBSERVED', status: 'paused' },
  'OBSERVED stopped': { type: 'OBSERVED', status: 'stopped' },
  'OBSERVED gone': { type: 'OBSERVED', status: 'gone' },
} as const satisfies Record<string, ContainerEvent>;

export type EventName = keyof typeof events;

/** What the container machine's services may answer. */
export const containerOutputs = {
  findImage: [
    { life: { epoch: 1 }, images: [] },
    { life: { epoch: 1 }, images: [image] },
    { life: { refused: 'another carries it on' }, images: [], failure },
    { life: { unseen: 'out of reach' }, images: [], failure },
    { life: { unseen: 'out of reach' }, images: [], failure, mustFail: true },
  ],
  delete: [0, 1],
  restore: [
    { outcome: 'restored', image },
    { outcome: 'rolledBack', failure },
    { outcome: 'failed', failure },
  ],
  checkpoint: [
    { outcome: 'checkpointed', image },
    { outcome: 'continues', image },
    { outcome: 'failed', failure },
  ],
  recover: [
    ...['created', 'running', 'paused', 'checkpointed', 'restored', 'stopped', 'gone'].map((status) => ({
      status,
      note: '',
    })),
    { status: 'running', note: '', awaitsResume: true },
  ],
};

/** One command at a time, as the wrapper has it: none is given while a service works. */
export const whatMayCome = (snapshot: AnyMachineSnapshot): EventObject[] =>
  snapshot.hasTag('resting') ? Object.values(events) : endingsOf(snapshot, containerOutputs);
