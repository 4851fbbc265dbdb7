/** Reads an answer to who listens instead of looking: each sentence once, when it is whole. */

import { sentenceEnd } from '../util/sentences';

export class Announcer {
  said = $state('');
  #text = '';
  #until = 0;

  /** `text`: what has been written so far; null when nothing is being written any more. */
  listen(text: string | null): void {
    if (text === null) {
      if (this.#until < this.#text.length) this.said = this.#text.slice(this.#until);
      this.#text = '';
      this.#until = 0;
      return;
    }
    if (!this.#text) this.#until = 0;
    this.#text = text;
    const end = sentenceEnd(text, this.#until);
    if (end > this.#until) this.said = text.slice(this.#until, end);
    this.#until = end;
  }
}
