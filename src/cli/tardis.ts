import { Command } from 'commander';
import packageJson from '../../package.json' with { type: 'json' };
import { reasonOf } from '../actions/problem.ts';
import { gcCommand } from './commands/gc.ts';
import { inspectCommand } from './commands/inspect.ts';
import { reportCommand } from './commands/report.ts';

const program = new Command('tardis')
  .description('Look at what Tardis does with the containers of this host, and remove images.')
  .version(packageJson.version, '--version', 'print the version')
  .addCommand(inspectCommand())
  .addCommand(reportCommand())
  .addCommand(gcCommand());

// `tardis inspect ... | head` is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

program.parseAsync().catch((error: unknown) => {
  process.stderr.write(`tardis: ${reasonOf(error)}\n`);
  process.exitCode = 1;
});
