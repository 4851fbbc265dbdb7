/** What went wrong, in the person's language. The server says it in English, and by a code. */

import * as m from '../../paraglide/messages.js';
import { ApiError } from '../api/http';
import { locale } from './locale.svelte';

/** By the server's codes. What is not in here is a fault of ours or too rare to be worth a sentence. */
export const PROBLEMS: Record<string, () => string> = {
  account_disabled: m.error_account_disabled,
  already_chosen: m.error_already_chosen,
  answers_running: m.error_answers_running,
  busy: m.error_busy,
  comparison_open: m.error_comparison_open,
  context_length_exceeded: m.error_too_long,
  csrf: m.error_foreign_page,
  database_unavailable: m.error_database_unavailable,
  disk_full: m.error_disk_full,
  email_taken: m.error_email_taken,
  empty_upload: m.error_empty_upload,
  engine_unavailable: m.error_engine_unavailable,
  gone_on: m.error_gone_on,
  host_not_allowed: m.error_foreign_page,
  import_running: m.error_import_running,
  internal_error: m.error_internal,
  interrupted: m.error_interrupted,
  invitation_needed: m.sign_up_invited,
  is_default: m.error_is_default,
  last_administrator: m.error_last_administrator,
  link_not_found: m.error_link_not_found,
  model_damaged: m.error_model_damaged,
  model_not_found: m.error_model_not_found,
  model_not_ready: m.error_model_not_ready,
  model_unloaded: m.error_model_unloaded,
  name_taken: m.error_name_taken,
  not_allowed: m.error_not_allowed,
  not_enough_memory: m.error_not_enough_memory,
  not_found: m.error_not_found,
  not_signed_in: m.error_not_signed_in,
  nothing_to_share: m.error_nothing_to_share,
  origin_not_allowed: m.error_foreign_page,
  queue_full: m.error_queue_full,
  request_too_large: m.error_too_large,
  same_twice: m.error_same_twice,
  server_replaced: m.error_server_replaced,
  still_running: m.error_still_running,
  too_long_to_share: m.error_too_long_to_share,
  too_many_imports: m.error_too_many_imports,
  too_many_keys: m.error_too_many_keys,
  too_many_listeners: m.error_too_many_listeners,
  too_many_runs: m.error_too_many_runs,
  too_many_shares: m.error_too_many_shares,
  unloading: m.error_unloading,
  wrong_credentials: m.error_wrong_credentials,
  wrong_password: m.error_wrong_password,
};

/** What an answer failed of. */
export function explain({ code, message }: { code?: string | null; message: string }): string {
  const own = !code ? undefined : PROBLEMS[code];
  if (own) return own();
  return locale.current === 'en' && message ? `${message.charAt(0).toUpperCase()}${message.slice(1)}` : m.error_unknown();
}

/** What to tell of anything that was thrown. */
export function describe(error: unknown): string {
  if (!(error instanceof ApiError)) return m.error_unknown();
  if (error.isOffline) return m.error_offline();
  const isKnown = error.code !== null && error.code in PROBLEMS;
  if (error.status === 429 && error.retryAfter && !isKnown) return m.error_slow_down({ seconds: error.retryAfter });
  if (error.status === 400 && !isKnown && locale.current !== 'en') return m.error_invalid();
  return explain(error);
}
