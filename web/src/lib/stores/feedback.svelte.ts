/** What the person thinks of the answers in the conversation on the screen. */

import * as api from '../api/feedback';
import type { Feedback, Reason, Vote } from '../api/types';
import { inTurn } from '../util/order';
import { chat } from './chat.svelte';

class FeedbackStore {
  #records = $state.raw<ReadonlyMap<string, Feedback>>(new Map());
  #conversation: string | null = null;
  #opening: Promise<void> = Promise.resolve();
  /** The answer whose thumb was pressed last, and of which more can be said. */
  asking = $state<string | null>(null);
  /** The answer that was just given again, and may be better than the one before. */
  offered = $state<string | null>(null);
  /** The comparison that was just begun or decided: it has the focus, and stays on the screen until one goes on. */
  recent = $state<string | null>(null);
  /** Whether models may learn from it; undefined: not known yet, null: never asked. */
  consent = $state<boolean | null | undefined>(undefined);

  open(conversation: string | null): Promise<void> {
    return (this.#opening = this.#open(conversation));
  }

  /** A thumb. A second press takes it back, of what was said before the page was opened as well. */
  press(message: string, verdict: 'up' | 'down'): Promise<void> {
    return inTurn(message, async () => {
      await this.#opening.catch(() => {});
      const record = this.rating(message);
      await (record?.verdict === verdict ? this.takeBack(record) : this.#rate(message, verdict, [], ''));
    });
  }

  async #open(conversation: string | null): Promise<void> {
    this.#conversation = conversation;
    this.#records = new Map();
    this.asking = this.offered = this.recent = null;
    for (let cursor: string | null = null; conversation; ) {
      const page = await api.list({ conversation, cursor, limit: 100 });
      if (conversation !== this.#conversation) return;
      // What was said meanwhile is newer than the page.
      this.#records = new Map([...page.items.map((item) => [item.id, item] as const), ...this.#records]);
      cursor = page.next_cursor;
      if (!cursor) return;
    }
  }

  rating(message: string): Feedback | null {
    return this.#find((record) => record.kind === 'rating' && record.message_id === message);
  }

  /** The comparison that an answer is part of, for as long as there is something to choose or to be told. */
  comparison(message: string): Feedback | null {
    return this.#find(
      ({ id, kind, verdict, message_id, other_id }) =>
        kind === 'comparison' && (!verdict || id === this.recent) && (message_id === message || other_id === message),
    );
  }

  rate(message: string, verdict: 'up' | 'down', reasons: Reason[], comment: string): Promise<void> {
    return inTurn(message, () => this.#rate(message, verdict, reasons, comment));
  }

  async #rate(message: string, verdict: 'up' | 'down', reasons: Reason[], comment: string): Promise<void> {
    this.#put(await api.rate(message, verdict, reasons, comment));
    this.asking = message;
    this.offered = null;
    if (this.consent === undefined) this.consent = (await api.consent()).is_given ?? null;
  }

  async takeBack(record: Feedback): Promise<void> {
    await api.withdraw(record.id);
    this.#records = new Map([...this.#records].filter(([id]) => id !== record.id));
    if (this.asking === record.message_id) this.asking = null;
  }

  async answerConsent(isGiven: boolean): Promise<void> {
    this.consent = (await api.setConsent(isGiven, true)).is_given;
  }

  async prefer(message: string, verdict: 'better' | 'worse' | 'same'): Promise<void> {
    await api.prefer(message, verdict);
    this.offered = null;
  }

  async compare(message: string, models: string[]): Promise<void> {
    const { id } = chat;
    const begun = await api.compare(message, models);
    if (id !== chat.id) return; // it is there when they come back
    this.#put(begun.feedback);
    this.recent = begun.feedback.id;
    chat.showBoth(begun.left, begun.right);
  }

  async vote(record: Feedback, verdict: Vote): Promise<void> {
    const { id } = chat;
    const { feedback, left, right } = await api.vote(record.id, verdict);
    if (id !== chat.id) return;
    this.recent = record.id;
    this.#put(feedback);
    chat.decide([left, right], verdict === 'right' ? right.id : left.id);
  }

  /** No choice: who wrote what is told nevertheless. */
  async skip(record: Feedback): Promise<void> {
    await this.takeBack(record);
    await chat.reload();
  }

  #find(wanted: (record: Feedback) => boolean): Feedback | null {
    for (const record of this.#records.values()) if (wanted(record)) return record;
    return null;
  }

  #put(record: Feedback): void {
    this.#records = new Map(this.#records).set(record.id, record);
  }
}

export const feedback = new FeedbackStore();
