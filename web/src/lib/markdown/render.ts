/**
 * A block of Markdown as HTML text. What the model wrote is hostile: its own HTML is shown as text, addresses other than
 * web and mail go nowhere, images are links that somebody has to click. `sanitize.ts` checks the result once more.
 */

import { Parser, Renderer, type Links, type Tokens } from 'marked';
import { lexer, marked, type MathRenderer, type MathToken } from './syntax';

/** What a rendering can make of code and formulas; null where the tool for it is not there (yet). */
export interface Tools {
  highlight: ((code: string, language: string) => string | null) | null;
  math: ((source: string, display: boolean) => string) | null;
  labels: { copy: string; image: string };
}

const HARMLESS_TAG = /^<(?:br\s*\/?|\/?(?:sub|sup|kbd|mark|u|s|ins|small))>$/i;
const WEB_ADDRESS = /^(?:https?:\/\/|mailto:)/i;
const INLINE_IMAGE = /^data:image\/(?:png|jpeg|gif|webp|avif);base64,/i;

export function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

export function renderBlock(raw: string, links: Links, tools: Tools): string {
  const renderer = new BlockRenderer(tools);
  const options = { ...marked.defaults, renderer };
  renderer.parser = new Parser(options);
  return renderer.parser.parse(lexer(links).lex(raw));
}

/** Addresses that a person may follow; null for everything else, scripts and our own routes among it. */
export function safeAddress(address: string): string | null {
  return WEB_ADDRESS.test(address.trim()) ? address.trim() : null;
}

class BlockRenderer extends Renderer implements MathRenderer {
  constructor(private readonly tools: Tools) {
    super();
  }

  math({ type, raw, text, isClosed }: MathToken): string {
    const { math } = this.tools;
    if (type === 'math') return math ? math(text, false) : `<code>${escape(raw)}</code>`;
    return `<div class="math" tabindex="0" dir="ltr">${isClosed && math ? math(text, true) : escape(raw)}</div>\n`;
  }

  override html({ text }: Tokens.HTML | Tokens.Tag): string {
    return HARMLESS_TAG.test(text.trim()) ? text : escape(text);
  }

  override code({ text, lang }: Tokens.Code): string {
    const language = /^[\w+#.-]+/.exec(lang ?? '')?.[0] ?? '';
    const body = (language && this.tools.highlight?.(text, language.toLowerCase())) || escape(text);
    const copy = escape(this.tools.labels.copy);
    return (
      `<div class="code" dir="ltr"><div class="code-head"><span>${escape(language)}</span>` +
      `<button type="button" data-copy>${copy}</button></div><pre tabindex="0"><code>${body}</code></pre></div>\n`
    );
  }

  override table(token: Tokens.Table): string {
    return `<div class="table" tabindex="0">${super.table(token)}</div>\n`;
  }

  override link({ href, tokens }: Tokens.Link): string {
    const address = safeAddress(href);
    const text = this.parser.parseInline(tokens);
    return address ? `<a href="${escape(address)}" target="_blank" rel="noopener noreferrer nofollow">${text}</a>` : text;
  }

  override image({ href, text }: Tokens.Image): string {
    if (INLINE_IMAGE.test(href)) return `<img src="${escape(href)}" alt="${escape(text)}">`;
    const address = safeAddress(href);
    if (!address) return escape(text);
    const label = escape(`${this.tools.labels.image} ${text || new URL(address).host}`);
    return `<a class="image" href="${escape(address)}" target="_blank" rel="noopener noreferrer nofollow">${label}</a>`;
  }
}
