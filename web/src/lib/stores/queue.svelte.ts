/**
 * Messages written while an answer is, or while their conversation is being fetched: each is sent once the answer before it
 * has ended well.
 */

import { untrack } from 'svelte';
import { newId } from '../util/ids';
import { chat } from './chat.svelte';
import { keepWaiting, readWaiting, type Waiting } from './drafts';
import { notices } from './notices.svelte';

class Queue {
  items = $state.raw<readonly Waiting[]>([]);
  /** What is being changed waits for its change; a person sends it then. */
  edited = $state<string | null>(null);
  /** The first is sent as soon as the conversation has been fetched. */
  isDue = $state(false);
  #conversation: string | null = null;
  #sending = new Set<string | null>(); // conversations
  /** The answer whose end is waited for. Without one, after a stop or a reload, a person says when. */
  #awaited: string | null = null;

  /** Whose messages are waiting. Those of a temporary chat are written down nowhere. */
  open(conversation: string | null): void {
    this.#conversation = conversation;
    this.#awaited = this.edited = null;
    this.isDue = false;
    this.items = conversation ? readWaiting(conversation) : [];
  }

  add(content: string): void {
    this.#set([...this.items, { id: newId(), content }]);
  }

  change(id: string, content: string): void {
    this.#set(this.items.map((item) => (item.id === id ? { ...item, content } : item)));
  }

  remove(id: string): void {
    this.#set(this.items.filter((item) => item.id !== id));
  }

  /** Raises ApiError where the server does not take it; it waits on then. */
  async sendNext(): Promise<void> {
    const next = this.items[0];
    const conversation = this.#conversation;
    if (!next || this.#sending.has(conversation) || chat.running) return;
    if (chat.isLoading) return void (this.isDue = true);
    this.#sending.add(conversation);
    try {
      if (conversation && conversation !== chat.id) await chat.open(conversation); // could not be fetched before
      if (conversation !== chat.id || chat.running) return;
      await chat.send(next.content, next.id);
      if (conversation === this.#conversation) this.remove(next.id);
      else if (conversation) keepWaiting(conversation, readWaiting(conversation).filter(({ id }) => id !== next.id));
    } finally {
      this.#sending.delete(conversation);
    }
  }

  /** To be told of every change of the answer at the end of the branch. True when it is the next one's turn. */
  watch(answer: { id: string; status: string } | null): boolean {
    if (answer?.status === 'running') this.#awaited = answer.id;
    else if (this.#awaited !== null && answer?.id === this.#awaited) {
      this.#awaited = null;
      return answer.status === 'complete' && this.items.length > 0 && this.items[0]!.id !== this.edited;
    }
    return false;
  }

  #set(items: readonly Waiting[]): void {
    this.items = items;
    if (this.#conversation) keepWaiting(this.#conversation, items);
  }
}

export const queue = new Queue();

// Here and not in a component: an answer may end while the settings are on the screen.
$effect.root(() => {
  $effect(() => {
    const place = chat.isTemporary ? null : chat.place;
    untrack(() => queue.open(place));
  });
  $effect(() => {
    if (chat.isLoading || !queue.isDue) return;
    queue.isDue = false;
    if (chat.id) untrack(() => void notices.attempt(() => queue.sendNext()));
  });
  $effect(() => {
    const last = chat.path.at(-1) ?? null;
    untrack(() => queue.watch(last) && void notices.attempt(() => queue.sendNext()));
  });
});
