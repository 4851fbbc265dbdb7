import { get, patch, post, remove, type Page } from './http';
import type { ApiKey, BrowserSession, CreatedKey, NewAccount, ProfileChange, SessionState, User } from './types';

export const session = () => get<SessionState>('/api/session');
export const setUp = (account: NewAccount) => post<unknown>('/api/setup', account);
export const signIn = (email: string, password: string) => post<unknown>('/api/session', { email, password });
export const signUp = (account: NewAccount) => post<unknown>('/api/users', account);
export const signOut = () => remove('/api/session');
export const resetPassword = (token: string, password: string) => post<unknown>('/api/reset', { token, password });

export const changeMe = (values: ProfileChange) => patch<User>('/api/me', values);
export const changePassword = (old_password: string, password: string) => patch<User>('/api/me', { old_password, password });
export const deleteMe = (password: string) => remove('/api/me', { password });

export const sessions = () => get<Page<BrowserSession>>('/api/sessions', { limit: 100 });
export const endSession = (id: string) => remove(`/api/sessions/${id}`);
export const keys = () => get<Page<ApiKey>>('/api/keys', { limit: 100 });
/** days: how long it is valid; null: until it is revoked. */
export const createKey = (name: string, days: number | null) => post<CreatedKey>('/api/keys', { name, expires_in_days: days });
export const revokeKey = (id: string) => remove(`/api/keys/${id}`);
