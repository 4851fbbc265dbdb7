/** What is done with whole conversations, wherever it is asked for: in the list, above the conversation, by name. */

import * as m from '../../paraglide/messages.js';
import type { ConversationChange } from '../api/types';
import { chat } from './chat.svelte';
import { history } from './history.svelte';
import { notices } from './notices.svelte';
import { router } from './router.svelte';

/** The one on the screen is then what the list says. Raises ApiError, as the others do. */
export async function change(id: string, values: ConversationChange): Promise<void> {
  const changed = await history.change(id, values);
  if (chat.id === id) chat.conversation = changed;
}

export async function archive(id: string, archived: boolean): Promise<void> {
  await change(id, { archived });
  if (!archived) return;
  if (router.path === `/c/${id}`) router.go('/');
  notices.say(m.archived(), { undo: () => notices.attempt(() => change(id, { archived: false })) });
}

export async function destroy(ids: string[]): Promise<void> {
  await history.destroy(ids);
  if (chat.id && ids.includes(chat.id)) router.go('/');
}
