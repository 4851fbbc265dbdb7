/** Reads an answer to who listens instead of looking: each sentence once, when it is whole. */

import { plainText } from '../markdown/plain';
import { sentenceEnd } from '../util/sentences';

const KEPT = 12; // sentences that stay in the page, so that a slow voice loses none of them

export class Announcer {
  /** For a live region, to which each is added: an element of its own is announced even if its words were said before. */
  said = $state.raw<readonly { key: number; text: string }[]>([]);
  #answer: string | null = null;
  /** How far each answer has been read, or was there before: one that is continued goes on from there. */
  #until = new Map<string, number>();
  #count = 0;

  /** What has been written so far of the answer with this id. */
  listen(answer: string, text: string): void {
    if (answer !== this.#answer) {
      this.clear();
      this.#answer = answer;
    }
    this.#say(answer, text, sentenceEnd(text, this.#until.get(answer) ?? 0));
  }

  /** The answer has ended. Says what is left of it; nothing of one that nobody listened to. */
  finish(answer: string, text: string): void {
    if (answer === this.#answer) this.#say(answer, text, text.length);
    this.#until.set(answer, text.length);
    this.#answer = null;
  }

  clear(): void {
    this.#answer = null;
    this.said = [];
  }

  #say(answer: string, text: string, end: number): void {
    const sentence = plainText(text.slice(this.#until.get(answer) ?? 0, end));
    this.#until.set(answer, end);
    if (sentence) this.said = [...this.said, { key: this.#count++, text: sentence }].slice(-KEPT);
  }
}

export const announcer = new Announcer();
