/** What administrators ask of the server. */

import { get, patch, post, remove, type Page } from './http';
import type { Account, AuditEntry, Invitation, OneTimeLink, Role } from './types';

const ROOT = '/api/admin';

export interface Range {
  cursor?: string | null;
  limit?: number;
}

export const people = (range: Range & { q?: string }) => get<Page<Account>>(`${ROOT}/users`, { ...range });
export const changePerson = (id: string, values: { role?: Role; disabled?: boolean }) => patch<Account>(`${ROOT}/users/${id}`, values);
export const removePerson = (id: string) => remove(`${ROOT}/users/${id}`);
export const resetLink = (id: string) => post<OneTimeLink>(`${ROOT}/users/${id}/reset`);

export const invitations = (range: Range) => get<Page<Invitation>>(`${ROOT}/invitations`, { ...range });
export const invite = (role: Role, expires_in_days: number) => post<OneTimeLink>(`${ROOT}/invitations`, { role, expires_in_days });
export const revokeInvitation = (id: string) => remove(`${ROOT}/invitations/${id}`);

export const log = (range: Range & { q?: string; action?: string }) => get<Page<AuditEntry>>(`${ROOT}/audit`, { ...range });
