/** Markdown as the text that somebody would read out of it: for the clipboard, and for who listens. */

import type { Token, Tokens } from 'marked';
import { lexer, type MathToken } from './syntax';

export function plainText(markdown: string): string {
  return blocks(lexer().lex(markdown.replace(/\r\n?/g, '\n'))).trim();
}

function blocks(tokens: Token[], between = '\n\n'): string {
  return tokens.map(block).filter(Boolean).join(between);
}

function block(token: Token): string {
  switch (token.type) {
    case 'space':
    case 'def':
    case 'hr':
    case 'checkbox':
      return '';
    case 'code':
    case 'mathBlock':
      return (token as Tokens.Code | MathToken).text;
    case 'html':
      return token.raw.trim();
    case 'blockquote':
      return blocks((token as Tokens.Blockquote).tokens);
    case 'list':
      return list(token as Tokens.List);
    case 'table': {
      const { header, rows } = token as Tokens.Table;
      return [header, ...rows].map((row) => row.map((cell) => inline(cell.tokens)).join('\t')).join('\n');
    }
    default:
      return 'tokens' in token && token.tokens ? inline(token.tokens) : token.raw.trim();
  }
}

function list({ items, ordered, start, loose }: Tokens.List): string {
  const lines = items.map((item, index) => {
    const mark = ordered ? `${Number(start) + index}. ` : item.task ? (item.checked ? '[x] ' : '[ ] ') : '- ';
    return mark + blocks(item.tokens, loose ? '\n\n' : '\n').replaceAll(/\n(?!\n)/g, `\n${' '.repeat(mark.length)}`);
  });
  return lines.join('\n');
}

function inline(tokens: Token[]): string {
  return tokens.map(words).join('');
}

function words(token: Token): string {
  switch (token.type) {
    case 'br':
      return '\n';
    case 'html':
      return /^<br\s*\/?>$/i.test(token.raw) ? '\n' : '';
    case 'image':
      return token['text'] as string;
    case 'link': {
      const { href, tokens } = token as Tokens.Link;
      const text = inline(tokens);
      return text === href || `mailto:${text}` === href ? text : `${text} (${href})`;
    }
    case 'codespan':
    case 'math':
    case 'escape':
      return token['text'] as string;
    default:
      return 'tokens' in token && token.tokens ? inline(token.tokens) : ((token as Tokens.Text).text ?? token.raw);
  }
}
