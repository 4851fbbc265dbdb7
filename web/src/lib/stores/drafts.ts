/** What was typed and not sent, per conversation: it survives a reload. */

const key = (conversation: string | null) => `fireside:draft:${conversation ?? 'new'}`;

export const readDraft = (conversation: string | null): string => localStorage.getItem(key(conversation)) ?? '';

export function keepDraft(conversation: string | null, text: string): void {
  if (text) localStorage.setItem(key(conversation), text);
  else localStorage.removeItem(key(conversation));
}
