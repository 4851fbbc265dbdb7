/**
 * What was written and not sent, per person and conversation: it survives a reload, and nobody else finds it.
 *
 * Drafts, with the files that belong to them, are the browser's. Messages that wait for an answer's end are the tab's:
 * in two tabs they would be sent twice.
 */

import type { Attached } from '../chat/attached';
import { isHere } from '../offline/kept';

export interface Draft {
  text: string;
  files: Attached[];
}

export interface Waiting {
  /** The message will have this id, so that the server takes it once, however often it is sent. */
  id: string;
  content: string;
}

const PREFIX = 'fireside:draft:';
let owner = '';

const key = (conversation: string | null, what = '') => `${PREFIX}${owner}:${conversation ?? 'new'}${what}`;

export function readDraft(conversation: string | null): Draft {
  return { text: localStorage.getItem(key(conversation)) ?? '', files: read(localStorage, key(conversation, ':files')) };
}

/** False where the browser has no room for it. */
export function keepText(conversation: string | null, text: string): boolean {
  return keep(localStorage, key(conversation), text);
}

/** Apart from the text, which is kept at every key. */
export function keepFiles(conversation: string | null, files: readonly Attached[]): boolean {
  return keep(localStorage, key(conversation, ':files'), files.length ? JSON.stringify(files) : '');
}

export const readWaiting = (conversation: string): Waiting[] => read(sessionStorage, key(conversation, ':waiting'));

export function keepWaiting(conversation: string, waiting: readonly Waiting[]): boolean {
  return keep(sessionStorage, key(conversation, ':waiting'), waiting.length ? JSON.stringify(waiting) : '');
}

/** Whose drafts are kept from here on; those of others are removed. Null: nobody's. */
export function forgetDraftsOfOthers(user: string | null): void {
  owner = user ?? '';
  for (const storage of [localStorage, sessionStorage]) {
    for (const name of Object.keys(storage)) {
      if (name.startsWith(PREFIX) && (user === null || !name.startsWith(`${PREFIX}${user}:`))) storage.removeItem(name);
    }
  }
}

function read<T>(storage: Storage, name: string): T[] {
  try {
    const found: unknown = JSON.parse(storage.getItem(name) ?? '[]');
    return Array.isArray(found) ? (found as T[]) : [];
  } catch {
    return []; // another version's
  }
}

function keep(storage: Storage, name: string, text: string): boolean {
  if (owner && !isHere(owner)) return true; // signed out in another tab, of which this one is about to hear
  try {
    if (text) storage.setItem(name, text);
    else storage.removeItem(name);
    return true;
  } catch {
    storage.removeItem(name); // rather nothing than what it was before
    return false;
  }
}
