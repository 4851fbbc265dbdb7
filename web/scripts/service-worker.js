// Builds src/sw.ts into /sw.js, with the list of files that the app needs without a network. The list holds hashes, so
// another build is another service worker.
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { bundle, catalogFiles } from './bundle.js';

/** What is larger and not part of the first page is kept once it has been used. */
const SMALL = 64 * 1024; // characters

/** @returns {import('vite').Plugin} */
export function serviceWorker() {
  return {
    name: 'fireside:service-worker',
    enforce: 'post',
    async generateBundle(_, output) {
      const page = String(output['index.html'].source);
      const languages = Object.values(catalogFiles(output));
      const built = Object.values(output)
        .filter(({ fileName, code, source }) => page.includes(`/${fileName}"`) || (/\.(?:js|css)$/.test(fileName) && (code ?? source).length <= SMALL))
        .map(({ fileName }) => `/${fileName}`);
      const files = [...built, ...readdirSync('public/assets').map((name) => `/assets/${name}`)]
        .filter((file) => !languages.includes(file))
        .sort();
      const version = createHash('sha256').update(page).update(String(files)).digest('hex').slice(0, 12);
      const code = await bundle('src/sw.ts', { VERSION: JSON.stringify(version), SHELL: JSON.stringify(['/', ...files]) });
      this.emitFile({ type: 'asset', fileName: 'sw.js', source: code });
    },
  };
}
