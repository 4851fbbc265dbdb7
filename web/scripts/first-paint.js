// Puts src/boot.ts into the page as a script that the first paint waits for, once the names of the built languages are
// known. A module would run too late, and our Content-Security-Policy allows no script within the page.
import { createHash } from 'node:crypto';
import { bundle, catalogFiles } from './bundle.js';

const MODULE = '<script type="module"';

/** @returns {import('vite').Plugin} */
export function firstPaint() {
  return {
    name: 'fireside:first-paint',
    enforce: 'post',
    transformIndexHtml: {
      order: 'pre',
      handler: (html, { server, path }) => (server && path === '/index.html' ? html.replace(MODULE, '<script type="module" src="/src/boot.ts"></script>$&') : html),
    },
    async generateBundle(_, output) {
      const code = await bundle('src/boot.ts', { CATALOG_FILES: JSON.stringify(catalogFiles(output)) });
      const name = `assets/boot-${createHash('sha256').update(code).digest('hex').slice(0, 8)}.js`;
      this.emitFile({ type: 'asset', fileName: name, source: code });
      const page = output['index.html'];
      page.source = page.source.replace(MODULE, `<script src="/${name}"></script>\n    $&`);
    },
  };
}
