/** An answer while it is being written. */

import { eventsOf } from '../api/conversations';
import { follow } from '../api/events';
import { ApiError } from '../api/http';
import type { Message, RunEvent } from '../api/types';

export interface Listener {
  onEnd(message: Message): void;
  /** It has ended, and of its text only `half` is known: the server has forgotten the events that brought the rest. */
  onPruned(half: Message): void;
  /** The conversation is too long for the model: its oldest messages were not read. */
  onLeftOut(): void;
  onTitle(title: string): void;
}

export class Answer {
  content = $state('');
  reasoning = $state('');
  #message: Message;
  #listener: Listener;
  #leaving = new AbortController();
  #text = '';
  #thought = '';
  #isDue = false;
  #ended = false;

  constructor(message: Message, listener: Listener) {
    this.#message = message;
    this.#listener = listener;
    this.content = this.#text = message.content;
    this.reasoning = this.#thought = message.reasoning ?? '';
  }

  /** Until the server says that it is done. Whoever stops following loses nothing: the run is the server's. */
  async follow(): Promise<void> {
    try {
      await follow(eventsOf(this.#message.run_id!), ({ data }) => this.#take(JSON.parse(data) as RunEvent), this.#leaving.signal);
    } catch (error) {
      if (this.#leaving.signal.aborted) return;
      const { message, code } = error instanceof ApiError ? error : { message: String(error), code: null };
      this.#end({ status: 'interrupted', error: { message, code } });
    }
  }

  leave(): void {
    this.#leaving.abort();
  }

  #take(event: RunEvent): boolean {
    switch (event.type) {
      case 'text':
        this.#text += event.text;
        break;
      case 'reasoning':
        this.#thought += event.reasoning;
        break;
      case 'context':
        this.#listener.onLeftOut();
        return false;
      case 'title':
        this.#listener.onTitle(event.title);
        break;
      case 'done':
        if (event.is_pruned) this.#end({ status: 'interrupted' }, this.#listener.onPruned);
        else this.#end({ status: event.status, error: event.error ?? null, finish_reason: event.finish_reason ?? null });
        return true;
    }
    if (!this.#isDue) {
      // At most one rendering a frame; a page in the background has no frames, and nobody to see it.
      this.#isDue = true;
      requestAnimationFrame(() => this.#show());
    }
    return false;
  }

  #show(): void {
    this.#isDue = false;
    this.content = this.#text;
    this.reasoning = this.#thought;
  }

  #end(how: Pick<Message, 'status'> & Partial<Message>, tell = this.#listener.onEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#show();
    tell({ ...this.#message, content: this.#text, reasoning: this.#thought || null, ...how });
  }
}
