/**
 * Text files within a message: code blocks whose first line says `file="name"`, behind what was written. So they are
 * Markdown to whoever reads or exports the message, a model among them.
 */

export interface Attached {
  name: string;
  content: string;
}

const LANGUAGES: Record<string, string> = {
  cjs: 'javascript', htm: 'html', js: 'javascript', md: 'markdown', mjs: 'javascript', py: 'python', rb: 'ruby', rs: 'rust',
  sh: 'bash', ts: 'typescript', txt: 'text', yml: 'yaml',
};
const OPENING = /^(`{3,})[\w+#.-]+ file="([^"\n]+)"$/gm;

export function withFiles(text: string, files: readonly Attached[]): string {
  return [text.trim(), ...files.map(asBlock)].filter(Boolean).join('\n\n');
}

/** The opposite. A block without an end is text like any other. */
export function splitFiles(message: string): { text: string; files: Attached[] } {
  const files: Attached[] = [];
  let text = '';
  let at = 0;
  for (const { 0: line, 1: fence, 2: name, index } of message.matchAll(OPENING)) {
    if (index < at) continue; // within the file before
    const begin = index + line.length + 1;
    const end = endOf(message, fence!, begin);
    if (end < 0) continue;
    text += message.slice(at, index);
    files.push({ name: name!, content: message.slice(begin, Math.max(begin, end)) });
    at = end + 1 + fence!.length;
  }
  return { text: (text + message.slice(at)).trim(), files };
}

/** Without what would end the name or the line, or be a folder. */
export function safeName(name: string): string {
  return name.split(/[\\/]/).at(-1)!.replace(/["`\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]/g, '').trim().slice(-100) || 'file.txt';
}

function asBlock({ name, content }: Attached): string {
  const runs = content.match(/`{3,}/g) ?? [];
  const fence = '`'.repeat(Math.max(2, ...runs.map((run) => run.length)) + 1);
  const body = content.replace(/\n$/, '');
  return `${fence}${languageOf(name)} file="${name}"\n${body ? `${body}\n` : ''}${fence}`;
}

function languageOf(name: string): string {
  const extension = /\.([A-Za-z0-9]+)$/.exec(name)?.[1]?.toLowerCase() ?? 'txt';
  return LANGUAGES[extension] ?? extension;
}

/** Where the content ends whose first character is at `begin`; negative where no fence closes it. */
function endOf(message: string, fence: string, begin: number): number {
  for (let end = message.indexOf(`\n${fence}`, begin - 1); end >= 0; end = message.indexOf(`\n${fence}`, end + 1)) {
    const next = message[end + 1 + fence.length];
    if (next === undefined || next === '\n') return end;
  }
  return -1;
}
