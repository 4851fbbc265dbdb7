/**
 * The service worker: the app itself, for when there is no network. What people read is kept elsewhere, by the page
 * (`lib/offline/kept.ts`); nothing of `/api` passes through here.
 *
 * Pages come from the server whenever it can be reached, so that nobody is ever held on an old version. Files that have
 * a hash in their name come from the cache, the others only where the server is away. The files of the version before stay, for the tabs that still run it.
 */

declare const VERSION: string;
declare const SHELL: string[];
/** Assets whose names say nothing of what is in them. */
declare const UNHASHED: string[];

// TypeScript's types of workers and of pages exclude each other.
interface WorkerEvent extends Event {
  waitUntil(done: Promise<unknown>): void;
}
interface WorkerFetchEvent extends WorkerEvent {
  request: Request;
  respondWith(response: Promise<Response>): void;
}
interface Worker {
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
  location: Location;
  addEventListener(type: 'install' | 'activate', listener: (event: WorkerEvent) => void): void;
  addEventListener(type: 'fetch', listener: (event: WorkerFetchEvent) => void): void;
  addEventListener(type: 'message', listener: (event: WorkerEvent & { data: unknown }) => void): void;
}
const worker = self as unknown as Worker;

const PREFIX = 'fireside:shell:';
const CACHE = PREFIX + VERSION;
const PATIENCE = 4000; // milliseconds for a network that neither answers nor fails
/** Paths that are not the app's own page, though somebody may navigate to them. */
const ELSEWHERE = /^\/(?:api|v1|s|metrics|version|healthz|readyz|openapi\.json|assets)(?:\/|$)/;

worker.addEventListener('install', (event) => {
  const take = async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll(SHELL);
    await worker.skipWaiting();
  };
  event.waitUntil(take());
});

worker.addEventListener('activate', (event) => {
  const tidy = async () => {
    const others = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CACHE);
    await Promise.all(others.slice(0, -1).map((name) => caches.delete(name)));
    await worker.clients.claim();
  };
  event.waitUntil(tidy());
});

worker.addEventListener('fetch', (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== 'GET' || origin !== worker.location.origin) return;
  if (request.mode === 'navigate') {
    if (!ELSEWHERE.test(pathname)) event.respondWith(page(request));
  } else if (pathname.startsWith('/assets/')) {
    event.respondWith(asset(request));
  }
});

/** The page tells what it fetched before there was a service worker: its language, for one. */
worker.addEventListener('message', (event) => {
  const paths = Array.isArray(event.data) ? event.data.filter((path) => typeof path === 'string' && path.startsWith('/assets/')) : [];
  const keep = async () => {
    const cache = await caches.open(CACHE);
    for (const path of paths) if (!(await cache.match(path))) await cache.add(path);
  };
  event.waitUntil(keep().catch(() => {}));
});

async function page(request: Request): Promise<Response> {
  const kept = await caches.match('/', { cacheName: CACHE });
  if (!kept) return fetch(request);
  const late = new Promise<Response>((resolve) => setTimeout(() => resolve(kept), PATIENCE));
  // A proxy in front of a server that is away answers in its place.
  const fresh = fetch(request).then((response) => (response.status >= 502 ? kept : response));
  return Promise.race([fresh.catch(() => kept), late]);
}

async function asset(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = (await cache.match(request)) ?? (await caches.match(request)); // the version before's
  const isOld = UNHASHED.includes(new URL(request.url).pathname); // or may be
  if (kept && !isOld) return kept;
  const response = await fetch(request).catch((error: unknown) => {
    if (!kept) throw error;
    return kept;
  });
  if (response.ok && response !== kept) await cache.put(request, response.clone());
  return kept && response.status >= 502 ? kept : response;
}
