/**
 * A block of Markdown as HTML text. What the model wrote is hostile: its own HTML is shown as text, addresses other than
 * web and mail go nowhere, images of other sites are buttons that somebody has to press. `sanitize.ts` checks the result
 * once more. What is to be drawn is marked by `data-frame`; components/Framed.svelte draws it.
 */

import { Parser, Renderer, type Links, type Tokens } from 'marked';
import { lexer, marked, type MathRenderer, type MathToken } from './syntax';

/** What a rendering can make of code and formulas; null where the tool for it is not there (yet). */
export interface Tools {
  highlight: ((code: string, language: string) => string | null) | null;
  math: ((source: string, display: boolean) => string) | null;
  labels: { copy: string; picture: string; preview: string; image: (host: string) => string };
}

export const MOST_LIVE = 8000; // characters
const HARMLESS_TAG = /^<(?:br\s*\/?|\/?(?:sub|sup|kbd|mark|u|s|ins|small))>$/i;
const WEB_ADDRESS = /^(?:https?:\/\/|mailto:)/i;
const DIAGRAMS = ['mermaid'];
const PAGES = ['html', 'svg'];
const INLINE_IMAGE = /^data:image\/(?:png|jpeg|gif|webp|avif);base64,/i;

export function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/**
 * What a block is rendered with. Colours take time for all of the code each time: more of it than MOST_LIVE gets them
 * when it is whole, or a long file would be slower to show than to write.
 */
export function toolsFor(raw: string, isOpen: boolean, tools: Tools): Tools {
  return isOpen && raw.length > MOST_LIVE ? { ...tools, highlight: null } : tools;
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
  /** A button within a link would be both at once. */
  #isInLink = false;

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

  override code({ raw, text, lang }: Tokens.Code): string {
    const language = /^[\w+#.-]+/.exec(lang ?? '')?.[0] ?? '';
    const body = (language && this.tools.highlight?.(text, language.toLowerCase())) || escape(text);
    const { copy, picture, preview } = this.tools.labels;
    const kind = isClosed(raw) ? kindOf(language.toLowerCase()) : null;
    const show = kind && `<button type="button" data-picture hidden>${escape(kind === 'diagram' ? picture : preview)}</button>`;
    return (
      `<div class="code" dir="ltr"${kind ? ` data-frame="${kind}"` : ''}><div class="code-head"><span>${escape(language)}</span>` +
      `${show ?? ''}<button type="button" data-copy>${escape(copy)}</button></div>` +
      `<pre tabindex="0"><code>${body}</code></pre></div>\n`
    );
  }

  override table(token: Tokens.Table): string {
    return `<div class="table" tabindex="0">${super.table(token)}</div>\n`;
  }

  override link({ href, tokens }: Tokens.Link): string {
    const address = safeAddress(href);
    this.#isInLink = true;
    const text = this.parser.parseInline(tokens);
    this.#isInLink = false;
    return address ? `<a href="${escape(address)}" target="_blank" rel="noopener noreferrer nofollow">${text}</a>` : text;
  }

  override image({ href, text }: Tokens.Image): string {
    if (INLINE_IMAGE.test(href)) return `<img src="${escape(href)}" alt="${escape(text)}">`;
    const address = safeAddress(href);
    const host = address && hostOf(address);
    if (!host || this.#isInLink) return escape(text || host || '');
    const label = escape(this.tools.labels.image(host));
    return `<button type="button" class="image" data-image="${escape(address)}">${label}${text && ` <span>${escape(text)}</span>`}</button>`;
  }
}

/** What can be made of code in this language beside its text. */
function kindOf(language: string): 'diagram' | 'page' | null {
  if (DIAGRAMS.includes(language)) return 'diagram';
  return PAGES.includes(language) ? 'page' : null;
}

/** Whether a code block's end has come: what is still being written is shown as it stands. */
function isClosed(raw: string): boolean {
  const fence = /^ {0,3}(`{3,}|~{3,})/.exec(raw)?.[1];
  return fence !== undefined && new RegExp(`\\n {0,3}${fence[0]}{${fence.length},}[ \\t]*\\n*$`).test(raw);
}

/** Null for a mail address or one that makes no sense. */
function hostOf(address: string): string | null {
  return URL.canParse(address) ? new URL(address).host || null : null;
}
