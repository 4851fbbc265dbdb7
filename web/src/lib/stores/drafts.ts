/** What was typed and not sent, per person and conversation: it survives a reload, and nobody else finds it. */

const PREFIX = 'fireside:draft:';
let owner = '';

const key = (conversation: string | null) => `${PREFIX}${owner}:${conversation ?? 'new'}`;

export const readDraft = (conversation: string | null): string => localStorage.getItem(key(conversation)) ?? '';

export function keepDraft(conversation: string | null, text: string): void {
  if (text) localStorage.setItem(key(conversation), text);
  else localStorage.removeItem(key(conversation));
}

/** Whose drafts are kept from here on; those of others are removed. Null: nobody's. */
export function forgetDraftsOfOthers(user: string | null): void {
  owner = user ?? '';
  for (const name of Object.keys(localStorage)) {
    if (name.startsWith(PREFIX) && (user === null || !name.startsWith(`${PREFIX}${user}:`))) localStorage.removeItem(name);
  }
}
