import { get, post, put, remove, type Page } from './http';
import type { Comparison, Consent, Feedback, FeedbackItem, Leaderboard, Reason, Vote } from './types';

export const list = (filter: { conversation?: string; cursor?: string | null; limit?: number }) => get<Page<FeedbackItem>>('/api/feedback', filter);
export const rate = (message: string, verdict: 'up' | 'down', reasons: Reason[], comment: string) =>
  put<Feedback>(`/api/messages/${message}/rating`, { verdict, reasons, comment });
export const prefer = (message: string, verdict: 'better' | 'worse' | 'same') => put<Feedback>(`/api/messages/${message}/preference`, { verdict });
export const compare = (message: string, models: string[]) => post<Comparison>(`/api/messages/${message}/comparison`, { models });
export const vote = (id: string, verdict: Vote) => post<Comparison>(`/api/feedback/${id}/vote`, { verdict });
export const withdraw = (id: string) => remove(`/api/feedback/${id}`);
export const withdrawAll = () => remove('/api/feedback');
export const consent = () => get<Consent>('/api/feedback/consent');
export const setConsent = (is_given: boolean, including_earlier: boolean) => put<Consent>('/api/feedback/consent', { is_given, including_earlier });

export const leaderboard = () => get<Leaderboard>('/api/admin/feedback/leaderboard');
export const exportOf = (format: 'sft' | 'dpo' | 'kto', weak: boolean) => `/api/admin/feedback/export?format=${format}${weak ? '&weak=true' : ''}`;
