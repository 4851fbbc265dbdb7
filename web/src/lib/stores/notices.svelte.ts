/** Short messages that go by themselves. */

import { ApiError } from '../api/http';
import { describe } from '../locale/problems';

export { describe };

export interface Notice {
  id: number;
  text: string;
  isError: boolean;
  undo?: () => unknown;
  action?: { label: string; run: () => unknown };
  /** Until it is dismissed. */
  stays?: boolean;
}

const SHOWN_FOR = 6000; // milliseconds

class Notices {
  items = $state<Notice[]>([]);
  #count = 0;
  #awayLines = 0;

  say(text: string, more: Partial<Pick<Notice, 'isError' | 'undo' | 'action' | 'stays'>> = {}): void {
    const notice = { id: ++this.#count, text, isError: false, ...more };
    this.items.push(notice);
    if (!more.stays) setTimeout(() => this.dismiss(notice.id), SHOWN_FOR);
  }

  dismiss(id: number): void {
    this.items = this.items.filter((notice) => notice.id !== id);
  }

  /** For a part of the page that says itself, as long as it is there, when the server is away. Gives what ends that. */
  awayLine(): () => void {
    this.#awayLines++;
    return () => void this.#awayLines--;
  }

  /** Carries `action` out; says what went wrong where it fails, and gives null then. */
  async attempt<T>(action: () => Promise<T>): Promise<T | null> {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof ApiError && error.isOffline && this.#awayLines)) this.say(describe(error), { isError: true });
      return null;
    }
  }
}

export const notices = new Notices();
