/** The frame's side of the conversation. It has no origin, and nobody but the page around it is listened to. */

import type { Order, Reply } from './protocol';

function say(reply: Reply): void {
  // A frame without an origin cannot name who listens; nothing that it says is a secret.
  parent.postMessage(reply, '*');
}

/** `show` gives the element whose size the frame should have, or null where the page around decides. */
export function listen(show: (order: Order) => Promise<Element | null>): void {
  const sizes = new ResizeObserver(([entry]) => {
    const { width, height } = entry!.target.getBoundingClientRect();
    say({ kind: 'shown', width: Math.ceil(width), height: Math.ceil(height) });
  });
  addEventListener('message', async ({ source, data }: MessageEvent<Order>) => {
    if (source !== parent) return;
    sizes.disconnect();
    document.documentElement.style.colorScheme = data.isDark ? 'dark' : 'light';
    try {
      const shown = await show(data);
      if (shown) sizes.observe(shown);
      else say({ kind: 'shown', width: 0, height: null });
    } catch (error) {
      say({ kind: 'failed', message: error instanceof Error ? error.message : String(error) });
    }
  });
  say({ kind: 'ready' });
}
