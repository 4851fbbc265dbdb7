/** What is done with whole conversations, wherever it is asked for: in the list, above the conversation, by name. */

import * as m from '../../paraglide/messages.js';
import { chat } from './chat.svelte';
import { history } from './history.svelte';
import { notices } from './notices.svelte';
import { router } from './router.svelte';

/** Raises ApiError, as `destroy` does. */
export async function archive(id: string, archived: boolean): Promise<void> {
  await history.change(id, { archived });
  if (!archived) return;
  if (router.path === `/c/${id}`) router.go('/');
  notices.say(m.archived(), { undo: () => notices.attempt(() => history.change(id, { archived: false })) });
}

export async function destroy(ids: string[]): Promise<void> {
  await history.destroy(ids);
  if (chat.id && ids.includes(chat.id)) router.go('/');
}
