/** The answers of the conversation on the screen that are being written. */

import type { Message } from '../api/types';
import { Answer, type Listener } from './answer.svelte';

export class Answers {
  #all = $state.raw<ReadonlyMap<string, Answer>>(new Map());

  get(id: string): Answer | null {
    return this.#all.get(id) ?? null;
  }

  follow(message: Message, listener: Listener): void {
    this.get(message.id)?.leave();
    const drop = () => (this.#all = new Map([...this.#all].filter(([, other]) => other !== answer)));
    const answer: Answer = new Answer(message, {
      ...listener,
      onEnd: (ended) => (listener.onEnd(ended), drop()),
      onPruned: (half) => (listener.onPruned(half), drop()),
    });
    this.#all = new Map(this.#all).set(message.id, answer);
    void answer.follow();
  }

  leave(): void {
    for (const answer of this.#all.values()) answer.leave();
    this.#all = new Map();
  }
}
