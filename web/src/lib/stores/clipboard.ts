/** Copying, and saying that it was done. */

import * as m from '../../paraglide/messages.js';
import { asMarkdown, asPlainText, plainOf, type Said } from '../chat/transcript';
import { notices } from './notices.svelte';

const nameOf = (role: string) => (role === 'user' ? m.copy_you() : m.copy_answer());

/** False, and said to the person, where the browser does not allow it. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    notices.say(m.copy_failed(), { isError: true });
    return false;
  }
}

async function copyAndSay(text: string): Promise<void> {
  if (await copy(text)) notices.say(m.copied());
}

export const copyPlain = (message: Said) => copyAndSay(plainOf(message));
export const copyConversation = (path: readonly Said[], form: 'markdown' | 'plain') =>
  copyAndSay(form === 'markdown' ? asMarkdown(path, nameOf) : asPlainText(path, nameOf));
