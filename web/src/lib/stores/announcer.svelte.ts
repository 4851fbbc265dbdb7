/** Reads an answer to who listens instead of looking: each sentence once, when it is whole. */

import { plainText } from '../markdown/plain';
import { sentenceEnd } from '../util/sentences';

const KEPT = 12; // sentences that stay in the page, so that a slow voice loses none of them

export class Announcer {
  /** For a live region, to which each is added: an element of its own is announced even if its words were said before. */
  said = $state.raw<readonly { key: number; text: string }[]>([]);
  #answer: string | null = null;
  #until = 0;
  #count = 0;

  /** What has been written so far of the answer with this id. */
  listen(answer: string, text: string): void {
    if (answer !== this.#answer) {
      this.clear();
      this.#answer = answer;
    }
    this.#say(text, sentenceEnd(text, this.#until));
  }

  /** The answer has ended. Says what is left of it; nothing of one that nobody listened to. */
  finish(answer: string, text: string): void {
    if (answer !== this.#answer) return;
    this.#say(text, text.length);
    this.#answer = null;
  }

  clear(): void {
    this.#answer = null;
    this.#until = 0;
    this.said = [];
  }

  #say(text: string, end: number): void {
    const sentence = plainText(text.slice(this.#until, end));
    this.#until = end;
    if (sentence) this.said = [...this.said, { key: this.#count++, text: sentence }].slice(-KEPT);
  }
}
