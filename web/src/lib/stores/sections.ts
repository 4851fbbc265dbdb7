/** The pages of the settings and of the administrators' room, for their own lists and for the commands. */

import * as m from '../../paraglide/messages.js';
import type { IconName } from '../../components/Icon.svelte';
import { session } from './session.svelte';

export interface Page {
  path: string;
  name: string;
  icon: IconName;
}

/** Those that are for this person. */
export function settingsPages(): Page[] {
  const all: (Page | false)[] = [
    { path: '/settings', name: m.settings_profile(), icon: 'person' },
    { path: '/settings/appearance', name: m.settings_appearance(), icon: 'sliders' },
    { path: '/settings/prompts', name: m.settings_prompts(), icon: 'write' },
    { path: '/settings/archive', name: m.settings_archive(), icon: 'archive' },
    { path: '/settings/feedback', name: m.settings_feedback(), icon: 'thumbUp' },
    session.canShare && { path: '/settings/shares', name: m.share_settings(), icon: 'link' },
    { path: '/settings/data', name: m.data(), icon: 'download' },
    { path: '/settings/security', name: m.settings_security(), icon: 'lock' },
    session.user?.role !== 'guest' && { path: '/settings/keys', name: m.settings_keys(), icon: 'key' },
  ];
  return all.filter((page) => page !== false);
}

export function adminPages(): Page[] {
  if (session.user?.role !== 'admin') return [];
  return [
    { path: '/admin', name: m.admin_people(), icon: 'people' },
    { path: '/admin/models', name: m.admin_models(), icon: 'box' },
    { path: '/admin/feedback', name: m.feedback_board(), icon: 'chart' },
    { path: '/admin/health', name: m.admin_health(), icon: 'pulse' },
    { path: '/admin/settings', name: m.admin_settings(), icon: 'settings' },
    { path: '/admin/backups', name: m.admin_backups(), icon: 'backup' },
    { path: '/admin/activity', name: m.admin_log(), icon: 'list' },
  ];
}
