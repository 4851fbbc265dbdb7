/** What goes on in other tabs and on other devices comes into this one, while somebody looks at it. */

import * as api from '../api/conversations';
import { repeat } from '../util/repeat';
import { tabs } from '../util/tabs';
import { chat } from './chat.svelte';
import { history } from './history.svelte';

const PAUSE = 15_000; // milliseconds
const NEWEST = 10; // conversations, those written to last

async function look(): Promise<void> {
  if (!history.isLoaded) return; // it is being asked for
  try {
    const { items } = await api.list({ limit: NEWEST });
    for (const conversation of items) history.hear(conversation);
    const leaf = items.find(({ id }) => id === chat.id)?.current_leaf_id;
    if (leaf && !chat.messages.has(leaf)) await chat.reload();
  } catch {
    // Next time.
  }
}

/** At once when another tab says so, and again and again for other devices. Returns how to end it. */
export function watchElsewhere(): () => void {
  const onMessage = () => document.hidden || void look();
  tabs.addEventListener('message', onMessage);
  const end = repeat(look, PAUSE);
  return () => {
    tabs.removeEventListener('message', onMessage);
    end();
  };
}
