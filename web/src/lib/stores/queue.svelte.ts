/** Messages written while an answer is: each is sent once the answer before it has ended well. */

import { newId } from '../util/ids';
import { chat } from './chat.svelte';
import { keepWaiting, readWaiting, type Waiting } from './drafts';

class Queue {
  items = $state.raw<readonly Waiting[]>([]);
  #conversation: string | null = null;
  #isSending = false;
  /** The answer whose end is waited for. Without one, after a stop or a reload, a person says when. */
  #awaited: string | null = null;

  /** Whose messages are waiting. Those of a temporary chat are written down nowhere. */
  open(conversation: string | null): void {
    this.#conversation = conversation;
    this.#awaited = null;
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
    if (!next || this.#isSending || chat.running) return;
    this.#isSending = true;
    try {
      await chat.send(next.content, next.id);
      this.remove(next.id);
    } finally {
      this.#isSending = false;
    }
  }

  /** To be told of every change of the answer at the end of the branch. True when it is the next one's turn. */
  watch(answer: { id: string; status: string } | null): boolean {
    if (answer?.status === 'running') this.#awaited = answer.id;
    else if (this.#awaited !== null && answer?.id === this.#awaited) {
      this.#awaited = null;
      return answer.status === 'complete' && this.items.length > 0;
    }
    return false;
  }

  #set(items: readonly Waiting[]): void {
    this.items = items;
    if (this.#conversation) keepWaiting(this.#conversation, items);
  }
}

export const queue = new Queue();
