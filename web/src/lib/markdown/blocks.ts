/**
 * Markdown cut into the blocks that it consists of, kept up to date while text is added.
 *
 * In CommonMark a block is closed when another one has begun after it. So only the last block is read again, and the one
 * before it as long as the last is in its first line: what begins a code block, "```", does not once a later "`" makes
 * it ordinary text. The one exception are link definitions, which hold for the whole text; they are collected here and
 * handed to whoever renders a block.
 */

import type { Links } from 'marked';
import { lexer } from './syntax';

export interface Block {
  /** Where it begins in the text. Stays the same while text is added, so it serves as a key. */
  start: number;
  raw: string;
}

export interface Blocks {
  blocks: Block[];
  links: Links;
}

export class BlockSplitter {
  #text = '';
  #blocks: Block[] = [];
  #links: Links = {};

  /** The blocks of `text`. Quick when it begins with the text of the call before. */
  split(text: string): Blocks {
    text = text.replace(/\r\n?/g, '\n');
    const open = this.#blocks.at(-1)?.raw.includes('\n') ? -1 : -2;
    const first = this.#blocks.at(open) ?? this.#blocks[0];
    if (!first || !text.startsWith(this.#text)) {
      this.#blocks = cut(text, 0);
      this.#links = linksOf(text);
    } else if (text.length > this.#text.length) {
      this.#blocks = [...this.#blocks.slice(0, open), ...cut(text.slice(first.start), first.start)];
      if (text.includes(']:', first.start)) this.#links = linksOf(text);
    }
    this.#text = text;
    return { blocks: this.#blocks, links: this.#links };
  }
}

function cut(text: string, offset: number): Block[] {
  const blocks: Block[] = [];
  let start = offset;
  for (const { type, raw } of lexer().blockTokens(text)) {
    const last = blocks.at(-1);
    if (type === 'space' && last) last.raw += raw;
    else blocks.push({ start, raw });
    start += raw.length;
  }
  // Where the lexer did not give the text back as it was, places in it mean nothing: one block then.
  return start - offset === text.length ? blocks : [{ start: offset, raw: text }];
}

function linksOf(text: string): Links {
  if (!text.includes(']:')) return {};
  const reader = lexer();
  reader.blockTokens(text, reader.tokens);
  return reader.tokens.links;
}
