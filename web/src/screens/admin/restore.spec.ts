import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { restoreCommands } from './restore';

test.each(['fireside.db', "it's $HOME; a name.db"])('a shell puts the backup in the place of %s', (name) => {
  const folder = mkdtempSync(join(tmpdir(), 'restore '));
  const [database, backup] = [join(folder, name), join(folder, `copy of ${name}`)];
  writeFileSync(database, 'new');
  writeFileSync(`${database}-wal`, 'log');
  writeFileSync(backup, 'old');
  execFileSync('sh', ['-ec', restoreCommands(database, backup)]);
  expect(readFileSync(database, 'utf8')).toBe('old');
  expect(readFileSync(`${database}.before`, 'utf8')).toBe('new');
  expect(readFileSync(`${database}.before-wal`, 'utf8')).toBe('log');
  expect(() => readFileSync(`${database}-wal`)).toThrow();
});
