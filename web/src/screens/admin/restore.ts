/** What puts a backup in the place of the database, in a shell where the server runs. */

/** What was there is moved aside, not deleted; its log and its index would not fit the backup. */
export function restoreCommands(database: string, backup: string): string {
  const [from, to] = [quoted(backup), (end: string) => quoted(database + end)];
  return [
    `for end in '' -wal -shm; do [ ! -e ${to('')}$end ] || mv ${to('')}$end ${to('.before')}$end; done`,
    `cp ${from} ${to('')}`,
  ].join('\n');
}

/** For a POSIX shell, whatever the name holds. */
function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
