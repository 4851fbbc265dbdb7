/** A whole branch as one text, for the clipboard. */

import { plainText } from '../markdown/plain';
import { splitFiles } from './attached';

export interface Said {
  role: string;
  content: string;
}

/** `nameOf` says who speaks. */
export function asMarkdown(path: readonly Said[], nameOf: (role: string) => string): string {
  return path.map(({ role, content }) => `## ${nameOf(role)}\n\n${content.trim()}\n`).join('\n');
}

export function asPlainText(path: readonly Said[], nameOf: (role: string) => string): string {
  return path.map((said) => `${nameOf(said.role)}:\n\n${plainOf(said)}\n`).join('\n');
}

/** What people write is no Markdown, but for the files with it. */
export function plainOf({ role, content }: Said): string {
  if (role !== 'user') return plainText(content);
  const { text, files } = splitFiles(content);
  return [text, ...files.map(({ name, content }) => `${name}:\n${content}`)].filter(Boolean).join('\n\n');
}
