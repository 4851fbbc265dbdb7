import { paraglideVitePlugin } from '@inlang/paraglide-js';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';
import { firstPaint } from './scripts/first-paint.js';
import { serviceWorker } from './scripts/service-worker.js';
import { splitMessages } from './scripts/split-messages.js';

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
  },
  // The sandboxed frames have no origin, so their modules are another site's to the browser.
  server: { cors: { origin: 'null' }, proxy: { '/api': process.env['FIRESIDE_URL'] ?? 'http://127.0.0.1:8000' } },
  test: { include: ['src/**/*.spec.ts'] },
});
