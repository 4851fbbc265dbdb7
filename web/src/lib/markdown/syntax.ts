/** GitHub's Markdown and maths between dollars or LaTeX's brackets. What it becomes is said in `render.ts`. */

import { Lexer, Marked, type Links, type TokenizerAndRendererExtension } from 'marked';

export interface MathToken {
  type: 'math' | 'mathBlock';
  raw: string;
  text: string;
  /** False for a block whose end has not come: it is shown as it stands. */
  isClosed: boolean;
}

/** What a renderer must be able to do beside marked's own kinds of tokens. */
export interface MathRenderer {
  math(token: MathToken): string;
}

// As Pandoc reads dollars: no space inside them, no digit after them, so that "$5 and $6" stays what it is.
const INLINE = /^(?:\$\$([^\n$]+?)\$\$|\$(?!\s)((?:\\.|[^\\$\n])+?)(?<!\s)\$(?!\d)|\\\(([^\n]+?)\\\))/;

// A block goes on to its end or to an empty line, whatever is in it. Were it another block until its end has come, a
// line of it that begins with a minus would be a list for as long as text streams in.
const BLOCK = /^(?:\$\$|\\\[)((?:(?!\n[ \t]*\n|\$\$|\\\])[\s\S])*)(?:(\$\$|\\\])[ \t]*)?/;

const math: TokenizerAndRendererExtension = {
  name: 'math',
  level: 'inline',
  start: (source) => found(source.search(/\$|\\\(/)),
  tokenizer(source) {
    const match = INLINE.exec(source);
    return match ? { type: 'math', raw: match[0], text: (match[1] ?? match[2] ?? match[3])!, isClosed: true } : undefined;
  },
  renderer: render,
};

const mathBlock: TokenizerAndRendererExtension = {
  name: 'mathBlock',
  level: 'block',
  start: (source) => found(source.search(/\n(?:\$\$|\\\[)/)),
  tokenizer(source) {
    const match = BLOCK.exec(source);
    if (!match) return undefined;
    return { type: 'mathBlock', raw: match[0], text: match[1]!.trim(), isClosed: match[2] !== undefined };
  },
  renderer: render,
};

function found(index: number): number | undefined {
  return index < 0 ? undefined : index;
}

function render(this: { parser: { renderer: unknown } }, token: unknown): string {
  return (this.parser.renderer as MathRenderer).math(token as MathToken);
}

export const marked = new Marked({ gfm: true, extensions: [mathBlock, math] });

/** A lexer for one text, which knows `links` from elsewhere in the document. */
export function lexer(links: Links = {}): Lexer {
  const made = new Lexer(marked.defaults);
  Object.assign(made.tokens.links, links);
  return made;
}
