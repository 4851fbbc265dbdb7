import { get, patch, post, remove, type Page } from './http';
import type { ApiKey, BrowserSession, SessionState, User } from './types';

export interface NewAccount {
  token?: string;
  name: string;
  email: string;
  password: string;
}

export interface MeChange {
  name?: string;
  instructions?: string;
  locale?: string;
  preferences?: Record<string, unknown>;
}

export const session = () => get<SessionState>('/api/session');
export const setUp = (account: NewAccount) => post<unknown>('/api/setup', account);
export const signIn = (email: string, password: string) => post<unknown>('/api/session', { email, password });
export const signUp = (account: NewAccount) => post<unknown>('/api/users', account);
export const signOut = () => remove('/api/session');
export const resetPassword = (token: string, password: string) => post<unknown>('/api/reset', { token, password });

export const changeMe = (values: MeChange) => patch<User>('/api/me', values);
export const changePassword = (old_password: string, password: string) => patch<User>('/api/me', { old_password, password });
export const deleteMe = (password: string) => remove('/api/me', { password });

export const sessions = () => get<Page<BrowserSession>>('/api/sessions', { limit: 100 });
export const endSession = (id: string) => remove(`/api/sessions/${id}`);
export const keys = () => get<Page<ApiKey>>('/api/keys', { limit: 100 });
export const createKey = (name: string) => post<ApiKey & { key: string }>('/api/keys', { name });
export const revokeKey = (id: string) => remove(`/api/keys/${id}`);
