/** What can be done by name, in the sheet that Ctrl K opens. */

import { tick } from 'svelte';
import * as m from '../../paraglide/messages.js';
import { THEMES } from '../theme';
import type { IconName } from '../../components/Icon.svelte';
import type { Conversation } from '../api/types';
import { isolate } from '../util/isolate';
import { chat } from './chat.svelte';
import { copyConversation } from './clipboard';
import { history } from './history.svelte';
import { models } from './models.svelte';
import { archive } from './organizing';
import { router } from './router.svelte';
import { screen } from './screen.svelte';
import { adminPages, settingsPages, type Page } from './sections';
import { session } from './session.svelte';
import { settings } from './settings.svelte';

export interface Command {
  name: string;
  icon: IconName;
  run: () => unknown;
}

/** What only the frame around the screens can do. */
export interface Frame {
  toggleSidebar: () => void;
  showShortcuts: () => void;
}

export function commands(frame: Frame): Command[] {
  return [
    { name: m.new_chat(), icon: 'write', run: () => router.go('/') },
    { name: m.temporary(), icon: 'ghost', run: beginTemporary },
    ...(router.path.startsWith('/settings') ? [] : ofConversation()),
    ...(history.project ? [{ name: m.project_all(), icon: 'folder' as const, run: () => into(null) }] : []),
    ...history.projects
      .filter(({ id }) => id !== history.project)
      .map(({ id, name }) => ({ name: m.command_project({ name: isolate(name) }), icon: 'folder' as const, run: () => into(id) })),
    ...models.items.filter(({ id }) => id !== chat.model).map(({ id }) => ({ name: m.command_model({ name: id }), icon: 'sliders' as const, run: () => chat.choose({ model: id }) })),
    { name: m.command_sidebar(), icon: 'sidebar', run: frame.toggleSidebar },
    ...THEMES.filter((theme) => theme !== settings.theme).map((theme) => ({
      name: m.command_theme({ name: { system: m.theme_system, light: m.theme_light, dark: m.theme_dark, contrast: m.theme_contrast }[theme]() }),
      icon: 'settings' as const,
      run: () => (settings.theme = theme),
    })),
    ...settingsPages().map((page) => toPage(m.command_settings(page), page)),
    ...adminPages().map((page) => toPage(m.command_admin(page), page)),
    { name: m.shortcuts(), icon: 'command', run: frame.showShortcuts },
    { name: m.sign_out(), icon: 'signOut', run: () => session.signOut() },
  ];
}

const toPage = (name: string, { path, icon }: Page): Command => ({ name, icon, run: () => router.go(path) });

function ofConversation(): Command[] {
  const open: Command[] = [{ name: m.parameters(), icon: 'sliders', run: () => (screen.areParametersOpen = true) }];
  if (!chat.path.length) return open;
  const { conversation } = chat;
  return [
    ...open,
    ...(chat.running ? [{ name: m.shortcut_stop(), icon: 'close' as const, run: () => chat.stop() }] : []),
    { name: m.command_first(), icon: 'arrowUp', run: () => (screen.goal = 'first') },
    { name: m.to_latest(), icon: 'arrowDown', run: () => (screen.goal = 'latest') },
    { name: m.copy_conversation_markdown(), icon: 'copy', run: () => copyConversation(chat.path, 'markdown') },
    { name: m.copy_conversation_plain(), icon: 'copy', run: () => copyConversation(chat.path, 'plain') },
    ...(conversation ? ofKept(conversation) : []),
  ];
}

function ofKept({ id, pinned_at, archived_at }: Conversation): Command[] {
  return [
    { name: pinned_at ? m.unpin() : m.pin(), icon: 'pin', run: () => history.change(id, { pinned: !pinned_at }) },
    { name: archived_at ? m.unarchive() : m.archive(), icon: 'archive', run: () => archive(id, !archived_at) },
  ];
}

/** To a new conversation there. */
async function into(project: string | null): Promise<void> {
  router.go('/');
  await history.show(project);
}

async function beginTemporary(): Promise<void> {
  router.go('/');
  await tick(); // the new conversation is there then, and it is an ordinary one
  chat.isTemporary = true;
}
