/** Files that a person hands over: text in UTF-8 and nothing else. */

export const MAX_FILE_BYTES = 300_000;

export class FileRefused extends Error {
  constructor(
    readonly reason: 'large' | 'binary',
    readonly fileName: string,
  ) {
    super(`${fileName}: ${reason}`);
  }
}

/** With plain line ends. Raises FileRefused for what is too large or no text; a file that cannot be read is no text either. */
export async function readText(file: File): Promise<string> {
  if (file.size > MAX_FILE_BYTES) throw new FileRefused('large', file.name);
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
    if (!text.includes('\0')) return text.replace(/\r\n?/g, '\n');
  } catch {
    // falls through: bytes that are no UTF-8, a folder, a file that is gone
  }
  throw new FileRefused('binary', file.name);
}
