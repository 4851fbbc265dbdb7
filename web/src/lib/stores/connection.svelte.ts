/** Whether the server can be reached, as the requests find out; and word to who waits for it to come back. */

import { whenHeard } from '../api/http';

const FIRST_PAUSE = 1_000; // milliseconds before the first look for a server that is away
const PAUSE = 10_000; // and at most between the next ones

class Connection {
  isAway = $state(false);
  #waiting = new Set<() => unknown>();
  #pause = FIRST_PAUSE;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    whenHeard((answered) => this.#note(answered));
    addEventListener('online', () => {
      this.#pause = FIRST_PAUSE; // the first look may come before the network does
      void this.look();
    });
    addEventListener('offline', () => this.#note(false));
  }

  /** `listener` is called whenever the server is back. Gives what ends that. */
  onReturn(listener: () => unknown): () => void {
    this.#waiting.add(listener);
    return () => this.#waiting.delete(listener);
  }

  /** Asks for a word that needs no database. */
  readonly look = async (): Promise<void> => {
    const answered = await fetch('/healthz', { cache: 'no-store' }).then(
      ({ ok }) => ok,
      () => false,
    );
    this.#note(answered);
  };

  #note(answered: boolean): void {
    clearTimeout(this.#timer);
    if (!answered) {
      this.#timer = setTimeout(() => void this.look(), this.#pause);
      this.#pause = Math.min(2 * this.#pause, PAUSE);
    } else this.#pause = FIRST_PAUSE;
    if (this.isAway === !answered) return;
    this.isAway = !answered;
    if (answered) for (const listener of this.#waiting) listener();
  }
}

export const connection = new Connection();
