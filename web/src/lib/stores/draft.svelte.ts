/** What is in the composer: every conversation has a draft of its own. */

import { withFiles, type Attached } from '../chat/attached';
import { keepFiles, keepText, readDraft } from './drafts';

/** What is on its way, and the draft that it was: null for that of a new conversation. */
export interface Sent {
  text: string;
  files: readonly Attached[];
  from: string | null;
}

export class Draft {
  text = $state('');
  files = $state.raw<readonly Attached[]>([]);
  /** Undefined until the composer is there first. */
  #of = $state<string | null | undefined>();
  #underWay = $state.raw<readonly Sent[]>([]);

  /** Whether something of this conversation is. Others can be written to meanwhile. */
  get isSending(): boolean {
    return this.#underWay.some(({ from }) => from === this.#of);
  }

  /** The whole message. */
  get content(): string {
    return withFiles(this.text, this.files);
  }

  open(conversation: string | null): void {
    if (conversation === this.#of) return;
    this.#of = conversation;
    const { text, files } = readDraft(conversation);
    this.text = text;
    this.files = files;
  }

  // Apart from each other: the text is kept at every key. False where the browser has no room.
  keepText(isTemporary: boolean): boolean {
    return keepText(this.#of ?? null, isTemporary ? '' : this.text);
  }

  keepFiles(isTemporary: boolean): boolean {
    return keepFiles(this.#of ?? null, isTemporary ? [] : this.files);
  }

  /** It stays the draft, here or there, until `send` has done it; what was typed meanwhile is the next one. */
  async send(send: (content: string, onMade: (id: string) => void) => Promise<unknown>): Promise<void> {
    const sent = this.#taken();
    this.#underWay = [...this.#underWay, sent];
    try {
      await send(withFiles(sent.text, sent.files), (id) => this.#move(sent, id));
      this.#clear(sent);
    } finally {
      this.#underWay = this.#underWay.filter((other) => other !== sent);
    }
  }

  /** It was put somewhere else. */
  clear(): void {
    this.#clear(this.#taken());
  }

  #taken(): Sent {
    return { text: this.text, files: this.files, from: this.#of ?? null };
  }

  /** The new conversation has come to be, and what is in the composer is its own. */
  #move(sent: Sent, id: string): void {
    if (this.#of !== sent.from) return;
    this.#erase(sent.from);
    this.#of = sent.from = id;
    this.#underWay = [...this.#underWay];
    this.keepText(false);
    this.keepFiles(false);
  }

  #clear(sent: Sent): void {
    const isHere = this.#of === sent.from;
    const { text, files } = isHere ? this : readDraft(sent.from);
    if (text === sent.text) {
      if (isHere) this.text = '';
      keepText(sent.from, '');
    }
    if (isSame(files, sent.files)) {
      if (isHere) this.files = [];
      keepFiles(sent.from, []);
    }
  }

  #erase(conversation: string | null): void {
    keepText(conversation, '');
    keepFiles(conversation, []);
  }
}

/** Files that were read from the storage again are others. */
function isSame(some: readonly Attached[], others: readonly Attached[]): boolean {
  return some === others || JSON.stringify(some) === JSON.stringify(others);
}

export const draft = new Draft();
