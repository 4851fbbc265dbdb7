/** What administrators ask of the server. */

import { get, patch, post, remove, type Page } from './http';
import type { Account, AuditEntry, Backup, Backups, Health, Invitation, OneTimeLink, Parameters, Role, ServedModels, ServerSettings } from './types';

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

export const models = () => get<ServedModels>(`${ROOT}/models`);
const modelPath = (name: string) => `${ROOT}/models/${encodeURIComponent(name)}`;
export const loadModel = (name: string) => post<ServedModels>(`${modelPath(name)}/load`);
export const restartModel = (name: string, when: 'now' | null) => post<ServedModels>(`${modelPath(name)}/restart`, { when });
export const unloadModel = (name: string, when: 'finished' | 'now' | null) => post<ServedModels>(`${modelPath(name)}/unload`, { when });
export const changeModel = (name: string, values: { is_default?: true; parameters?: Parameters }) => patch<ServedModels>(modelPath(name), values);

export const health = () => get<Health>(`${ROOT}/health`);
export const settings = () => get<ServerSettings>(`${ROOT}/settings`);
export const backups = () => get<Backups>(`${ROOT}/backups`);
export const backUp = () => post<Backup>(`${ROOT}/backups`);
export const backupPath = (name: string) => `${ROOT}/backups/${encodeURIComponent(name)}`;
export const removeBackup = (name: string) => remove(backupPath(name));
