/** Registers the service worker, and notices when it is another version than this page. */

import * as m from '../../paraglide/messages.js';
import { notices } from '../stores/notices.svelte';

const HOUR = 60 * 60 * 1000; // milliseconds

/** Once the app is in use: the first page is not to wait for it. */
export function startWorker(): void {
  if (!import.meta.env.PROD || !('serviceWorker' in navigator)) return;
  if ('requestIdleCallback' in globalThis) requestIdleCallback(() => void register(), { timeout: 5000 });
  else setTimeout(() => void register(), 2000);
}

async function register(): Promise<void> {
  try {
    const container = navigator.serviceWorker;
    const isUpdate = container.controller !== null;
    const registration = await container.register('/sw.js', { updateViaCache: 'none' });
    const { active } = await container.ready;
    const files = performance.getEntriesByType('resource').map(({ name }) => new URL(name));
    active?.postMessage(files.filter(({ origin }) => origin === location.origin).map(({ pathname }) => pathname));
    if (isUpdate) container.addEventListener('controllerchange', offerReload, { once: true });
    else container.addEventListener('controllerchange', () => container.addEventListener('controllerchange', offerReload, { once: true }), { once: true });
    setInterval(() => void registration.update().catch(() => {}), HOUR);
  } catch {
    // Without one the app works as well, as long as there is a network.
  }
}

function offerReload(): void {
  notices.say(m.update_ready(), { action: { label: m.reload(), run: () => location.reload() }, stays: true });
}
