/** What administrators and sign-ins did, as sentences. */

import * as m from '../../paraglide/messages.js';
import type { AuditEntry, Role } from '../../lib/api/types';
import { isolate } from '../../lib/util/isolate';
import { roleName } from './roles';

type Told = (entry: AuditEntry, who: string, whom: string) => string;

const text = (entry: AuditEntry, key: string): string => isolate(String(entry.detail[key] ?? ''));

const SENTENCES: Record<string, [name: () => string, told: Told]> = {
  sign_in: [m.log_sign_in, (_, who) => m.log_sign_in_by({ who })],
  sign_in_failed: [m.log_sign_in_failed, (entry, _, whom) => (entry.target ? m.log_sign_in_failed_as({ whom }) : m.log_sign_in_failed_unknown())],
  setup: [m.log_setup, (_, who) => m.log_setup_by({ who })],
  sign_up: [m.log_sign_up, (_, who) => m.log_sign_up_by({ who })],
  password_reset: [m.log_password_reset, (_, who) => m.log_password_reset_by({ who })],
  password_changed: [m.log_password_changed, (_, who) => m.log_password_changed_by({ who })],
  account_deleted: [m.log_account_deleted, () => m.log_account_deleted_by()],
  key_created: [m.log_key_created, (_, who) => m.log_key_created_by({ who })],
  key_revoked: [m.log_key_revoked, (_, who) => m.log_key_revoked_by({ who })],
  user_changed: [m.log_user_changed, personChanged],
  user_removed: [m.log_user_removed, (_, who) => m.log_user_removed_by({ who })],
  reset_made: [m.log_reset_made, (_, who, whom) => m.log_reset_made_by({ who, whom })],
  invitation_made: [m.log_invitation_made, (_, who) => m.log_invitation_made_by({ who })],
  invitation_revoked: [m.log_invitation_revoked, (_, who) => m.log_invitation_revoked_by({ who })],
  model_loaded: [m.log_model_loaded, (entry, who) => m.log_model_loaded_by({ who, model: text(entry, 'model') })],
  model_unloaded: [m.log_model_unloaded, (entry, who) => m.log_model_unloaded_by({ who, model: text(entry, 'model') })],
  model_changed: [m.log_model_changed, (entry, who) => m.log_model_changed_by({ who, model: text(entry, 'model') })],
  model_default: [m.log_model_default, (entry, who) => m.log_model_default_by({ who, model: text(entry, 'model') })],
  feedback_exported: [m.log_feedback_exported, (_, who) => m.log_feedback_exported_by({ who })],
  backup: [m.log_backup, (entry, who) => m.log_backup_by({ who, file: text(entry, 'file') })],
  backup_downloaded: [m.log_backup_downloaded, (entry, who) => m.log_backup_downloaded_by({ who, file: text(entry, 'file') })],
  backup_deleted: [m.log_backup_deleted, (entry, who) => m.log_backup_deleted_by({ who, file: text(entry, 'file') })],
};

export const ACTIONS = Object.keys(SENTENCES);

export const actionName = (action: string): string => SENTENCES[action]?.[0]() ?? action;

/** What nobody has written a sentence for is named as the server names it. */
export function sentence(entry: AuditEntry): string {
  const who = entry.user_name ? isolate(entry.user_name) : (entry.address ? m.log_somebody() : m.log_terminal());
  const whom = entry.target_name ? isolate(entry.target_name) : m.log_somebody();
  return SENTENCES[entry.action]?.[1](entry, who, whom) ?? `${who}: ${entry.action}`;
}

function personChanged(entry: AuditEntry, who: string, whom: string): string {
  const { role, disabled } = entry.detail;
  const said = [
    ...(typeof role === 'string' ? [m.log_role_by({ who, whom, role: roleName(role as Role) })] : []),
    ...(typeof disabled === 'boolean' ? [disabled ? m.log_disabled_by({ who, whom }) : m.log_enabled_by({ who, whom })] : []),
  ];
  return said.join(' ') || m.log_user_changed();
}
