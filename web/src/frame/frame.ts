/** Draws a diagram, or shows HTML and SVG, where neither can do harm: the page has no origin and no network. */

import type { Mermaid } from 'mermaid';
import type { Order } from './protocol';
import { listen } from './talk';

let loading: Promise<Mermaid> | null = null;

listen(async (order) => {
  if (order.kind === 'diagram') return diagram(order);
  if (order.kind === 'page') return (await drawing(order.source)) ?? page(order.source);
  return null;
});

async function diagram({ source, isDark, colours }: Order & { kind: 'diagram' }): Promise<Element> {
  loading ??= import('mermaid').then((module) => module.default);
  const mermaid = await loading;
  const { text, ground, line, fill } = colours;
  mermaid.initialize({
    startOnLoad: false,
    securityLevel: 'strict',
    suppressErrorRendering: true,
    fontFamily: 'system-ui, sans-serif',
    theme: 'base',
    themeVariables: {
      darkMode: isDark,
      background: ground,
      primaryColor: fill,
      primaryTextColor: text,
      primaryBorderColor: line,
      lineColor: line,
      textColor: text,
      edgeLabelBackground: ground,
      fontSize: '15px',
    },
  });
  const { svg } = await mermaid.render('diagram', source);
  const box = document.createElement('div');
  box.innerHTML = svg;
  box.style.cssText = 'display: flow-root; text-align: center;';
  document.body.style.margin = '0';
  document.body.replaceChildren(box);
  return box;
}

/** An SVG as an image, which browsers give neither scripts nor network. Null where it is none, or one with mistakes. */
function drawing(source: string): Promise<Element | null> {
  if (!/^\s*(?:<\?xml[^>]*>\s*)?<svg[\s>]/i.test(source)) return Promise.resolve(null);
  const whole = /\sxmlns=/.test(source) ? source : source.replace(/<svg/i, '<svg xmlns="http://www.w3.org/2000/svg"');
  const image = new Image();
  image.style.cssText = 'display: block; max-width: 100%; min-height: 3rem; margin: auto;';
  document.body.style.cssText = 'margin: 0; background: #fff;';
  document.body.replaceChildren(image);
  return new Promise((resolve) => {
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = `data:image/svg+xml,${encodeURIComponent(whole)}`;
  });
}

/** In a frame within the frame that may run no script at all, and whose links lead nowhere. */
function page(source: string): null {
  const inner = document.createElement('iframe');
  inner.setAttribute('sandbox', '');
  inner.srcdoc = `<!doctype html><meta name="color-scheme" content="light">${source}`;
  inner.style.cssText = 'position: fixed; inset: 0; width: 100%; height: 100%; border: 0; background: #fff; color-scheme: light;';
  document.body.replaceChildren(inner);
  return null;
}
