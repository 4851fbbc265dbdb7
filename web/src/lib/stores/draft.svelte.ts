/** What is in the composer: every conversation has a draft of its own. */

import { withFiles, type Attached } from '../chat/attached';
import { newId } from '../util/ids';
import { keepFiles, keepText, readDraft } from './drafts';

/** What is on its way, and the draft that it was: null for that of a new conversation. */
export interface Sent {
  id: string;
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
  /** What failed, by its conversation: the server may have taken it, and takes it once under the same id. */
  #unsure = new Map<string | null, Sent>();
  /** What this tab last read from the storage, or wrote there. Anything else is another tab's. */
  #stored: { text: string; files: readonly Attached[] } = { text: '', files: [] };

  /** Whether something of this conversation is. Others can be written to meanwhile. */
  get isSending(): boolean {
    return this.#underWay.some(({ from }) => from === this.#of);
  }

  /** The whole message. */
  get content(): string {
    return withFiles(this.text, this.files);
  }

  /** Of the message that this is: the same as before where nothing changed since it failed. */
  get id(): string {
    const failed = this.#unsure.get(this.#of ?? null);
    return failed && failed.text === this.text && isSame(failed.files, this.files) ? failed.id : newId();
  }

  open(conversation: string | null): void {
    if (conversation === this.#of) return;
    this.#of = conversation;
    const { text, files } = (this.#stored = readDraft(conversation));
    this.text = text;
    this.files = files;
  }

  // Apart from each other: the text is kept at every key. False where the browser has no room.
  keepText(isTemporary: boolean): boolean {
    const text = isTemporary ? '' : this.text;
    if (!text && readDraft(this.#of ?? null).text !== this.#stored.text) return true;
    this.#stored = { ...this.#stored, text };
    return keepText(this.#of ?? null, text);
  }

  keepFiles(isTemporary: boolean): boolean {
    const files = isTemporary ? [] : this.files;
    if (!files.length && !isSame(readDraft(this.#of ?? null).files, this.#stored.files)) return true;
    this.#stored = { ...this.#stored, files };
    return keepFiles(this.#of ?? null, files);
  }

  /** Another tab has emptied the draft of a conversation: what is in this one's composer stays. */
  keepAgain(isTemporary: boolean): void {
    const { text, files } = readDraft(this.#of ?? null);
    if (!text && this.text) this.keepText(isTemporary);
    if (!files.length && this.files.length) this.keepFiles(isTemporary);
  }

  /** It stays the draft, here or there, until `send` has done it; what was typed meanwhile is the next one. */
  async send(send: (content: string, id: string, onMade: (conversation: string) => void) => Promise<unknown>): Promise<void> {
    const sent = this.#taken();
    this.#underWay = [...this.#underWay, sent];
    try {
      await send(withFiles(sent.text, sent.files), sent.id, (conversation) => this.#move(sent, conversation));
      this.#unsure.delete(sent.from);
      this.#clear(sent);
    } catch (error) {
      this.#unsure.set(sent.from, sent);
      throw error;
    } finally {
      this.#underWay = this.#underWay.filter((other) => other !== sent);
    }
  }

  /** It was put somewhere else. */
  clear(): void {
    this.#clear(this.#taken());
  }

  #taken(): Sent {
    return { id: this.id, text: this.text, files: this.files, from: this.#of ?? null };
  }

  /** The new conversation has come to be, and what is in the composer is its own. */
  #move(sent: Sent, id: string): void {
    if (this.#of !== sent.from) return;
    this.#erase(sent.from, this.#stored);
    this.#of = sent.from = id;
    this.#underWay = [...this.#underWay];
    this.keepText(false);
    this.keepFiles(false);
  }

  #clear(sent: Sent): void {
    if (this.#of === sent.from) {
      if (this.text === sent.text) this.text = '';
      if (isSame(this.files, sent.files)) this.files = [];
    }
    this.#erase(sent.from, sent);
  }

  /** Unless another tab has another draft in the same place by now. */
  #erase(conversation: string | null, own: Pick<Sent, 'text' | 'files'>): void {
    const { text, files } = readDraft(conversation);
    if (text === own.text) keepText(conversation, '');
    if (isSame(files, own.files)) keepFiles(conversation, []);
  }
}

/** Files that were read from the storage again are others. */
function isSame(some: readonly Attached[], others: readonly Attached[]): boolean {
  return some === others || JSON.stringify(some) === JSON.stringify(others);
}

export const draft = new Draft();
