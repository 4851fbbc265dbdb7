import { paraglideVitePlugin } from '@inlang/paraglide-js';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';
import { firstPaint } from './scripts/first-paint.js';
import { serviceWorker } from './scripts/service-worker.js';
import { splitMessages } from './scripts/split-messages.js';

/** Svelte, the stores and what Paraglide's languages count with. */
const BASE = /node_modules\/(?:svelte|esm-env|clsx)\/|src\/(?:lib\/(?:api\/http|chat|locale|offline|stores|util|theme)|paraglide\/registry)/;

/** What `npm run dev` asks for everything that is not the app itself. */
const SERVER = process.env['FIRESIDE_URL'] ?? 'http://127.0.0.1:8000';

export default defineConfig({
  plugins: [
    paraglideVitePlugin({
      project: './project.inlang',
      outdir: './src/paraglide',
      outputStructure: 'locale-modules',
      strategy: ['globalVariable', 'baseLocale'], // src/lib/locale chooses
      emitReadme: false,
    }),
    splitMessages(),
    firstPaint(),
    serviceWorker(),
    svelte(),
  ],
  build: {
    outDir: '../src/fireside/web/dist',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0, // data: addresses would need a wider Content-Security-Policy
    modulePreload: { polyfill: false },
    // What every part of the app is built on is one file: the first page has few requests to spend.
    rolldownOptions: { output: { codeSplitting: { groups: [{ name: 'base', test: BASE }] } } },
  },
  server: {
    cors: { origin: 'null' }, // the sandboxed frames have none, so their modules are another site's to the browser
    // With the Host that the browser asked for: the server takes a change only from a page of the same name.
    proxy: Object.fromEntries(['/api', '/s/'].map((path) => [path, { target: SERVER, changeOrigin: false }])),
  },
  test: { include: ['src/**/*.spec.ts'] },
});
