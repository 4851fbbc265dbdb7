import { createServer as createHttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer } from 'vite';
import { expect, test, vi } from 'vitest';
import { firstPaint } from '../scripts/first-paint.js';

const port = (server: { address(): unknown } | null) => (server!.address() as AddressInfo).port;

/** What `npm run dev` does, without what takes its time. */
test('the server is asked in the name of the page, and frames are left as they are', async () => {
  const upstream = createHttpServer(({ headers }, response) => response.end(headers.host)).listen(0);
  vi.stubEnv('FIRESIDE_URL', `http://localhost:${port(upstream)}`);
  const { default: config } = await import('../vite.config');
  const server = { ...config.server, port: 0, hmr: false, watch: null } as const;
  const dev = await (await createServer({ configFile: false, logLevel: 'silent', optimizeDeps: { noDiscovery: true }, plugins: [firstPaint()], server })).listen();
  const asked = async (path: string) => (await fetch(`http://localhost:${port(dev.httpServer)}${path}`, { headers: { accept: 'text/html' } })).text();
  for (const path of ['/api/session', '/s/secret']) expect(await asked(path)).toBe(`localhost:${port(dev.httpServer)}`);
  for (const path of ['/', '/c/1']) expect(await asked(path)).toContain('src="/src/boot.ts"');
  expect(await asked('/assets/frame.html')).not.toContain('boot.ts');
  await dev.close();
  upstream.close();
});
