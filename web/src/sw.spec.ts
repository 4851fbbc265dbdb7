import { expect, test, vi } from 'vitest';

type Answer = (event: { request: Request; respondWith: (response: Promise<Response>) => void }) => void;

/** A Cache Storage of texts by cache and path, as far as the worker uses one. */
function cacheStorage(all: Record<string, Record<string, string>>) {
  const path = ({ url }: Request) => new URL(url).pathname;
  const found = (text: string | undefined) => (text === undefined ? undefined : new Response(text));
  const open = async (name: string) => ({
    match: async (request: Request) => found(all[name]?.[path(request)]),
    put: async (request: Request, response: Response) => void ((all[name] ??= {})[path(request)] = await response.text()),
  });
  const match = async (request: Request) => found(Object.values(all).find((cache) => path(request) in cache)?.[path(request)]);
  return { open, match };
}

test('a file without a hash comes from the server, and without one from the cache of this version', async () => {
  const all = {
    'fireside:shell:old': { '/assets/flame.svg': 'old', '/assets/gone-12345678.js': 'for old tabs', '/assets/touch180.png': 'old' },
    'fireside:shell:new': { '/assets/flame.svg': 'new', '/assets/base-12345678.js': 'code' },
  };
  let answer: Answer;
  const addEventListener = (type: string, listener: Answer) => type === 'fetch' && (answer = listener);
  vi.stubGlobal('self', { location: { origin: 'http://fireside' }, addEventListener });
  vi.stubGlobal('VERSION', 'new');
  vi.stubGlobal('SHELL', []);
  vi.stubGlobal('UNHASHED', ['/assets/flame.svg', '/assets/touch180.png']);
  vi.stubGlobal('caches', cacheStorage(all));
  let server: Record<string, Response> = {};
  vi.stubGlobal('fetch', async ({ url }: Request) => {
    const response = server[new URL(url).pathname];
    if (!response) throw new TypeError('away');
    return response;
  });
  await import('./sw' as string); // a script, and no module to TypeScript
  const get = async (path: string) => {
    let response = Promise.reject<Response>(new Error('not answered'));
    response.catch(() => {});
    answer({ request: new Request(`http://fireside${path}`), respondWith: (given) => (response = given) });
    return (await response).text();
  };
  expect(await get('/assets/flame.svg')).toBe('new');
  expect(await get('/assets/base-12345678.js')).toBe('code');
  expect(await get('/assets/gone-12345678.js')).toBe('for old tabs');
  server = { '/assets/flame.svg': new Response('newest'), '/assets/touch180.png': new Response('newest'), '/assets/base-12345678.js': new Response('never') };
  expect(await get('/assets/flame.svg')).toBe('newest');
  expect(await get('/assets/touch180.png')).toBe('newest');
  expect(await get('/assets/base-12345678.js')).toBe('code');
  server = { '/assets/flame.svg': new Response('proxy', { status: 502 }) };
  expect(await get('/assets/flame.svg')).toBe('newest');
  vi.unstubAllGlobals();
});
