// Builds src/sw.ts into /sw.js, with the list of files that the app needs without a network. The list holds hashes, so
// another build is another service worker. Files without a hash in their name count with what is in them.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { bundle, catalogFiles } from './bundle.js';

/** What is larger and not part of the first page is kept once it has been used. */
const SMALL = 64 * 1024; // characters

/** Of vite.frame.config.ts. */
const FRAMES = ['/assets/frame.html', '/assets/image.html'];

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
      const unhashed = readdirSync('public/assets').map((name) => `/assets/${name}`);
      const files = [...built, ...unhashed].filter((file) => !languages.includes(file)).sort();
      const hash = createHash('sha256').update(page).update(String(files));
      for (const file of unhashed) hash.update(readFileSync(`public${file}`));
      const values = { VERSION: hash.digest('hex').slice(0, 12), SHELL: ['/', ...files], UNHASHED: [...unhashed, ...FRAMES] };
      const code = await bundle('src/sw.ts', Object.fromEntries(Object.entries(values).map(([name, value]) => [name, JSON.stringify(value)])));
      this.emitFile({ type: 'asset', fileName: 'sw.js', source: code });
    },
  };
}
