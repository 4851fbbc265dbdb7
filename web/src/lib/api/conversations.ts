import { get, getKept, patch, post, remove, withQuery, type Page } from './http';
import { keep } from '../offline/kept';
import type { Answering, Conversation, ConversationChange, Message, Model, NewConversation, Project, Prompt, Started, Tree } from './types';

const ROOT = '/api/conversations';

export interface Filter {
  q?: string | null;
  project?: string | null;
  archived?: boolean;
  pinned?: boolean;
  cursor?: string | null;
  limit?: number;
}

export const list = (filter: Filter, signal?: AbortSignal) => get<Page<Conversation>>(ROOT, { ...filter }, signal);
/** The beginning of a list, which is there without a network too. */
export const listKept = (filter: Filter) => getKept<Page<Conversation>>(ROOT, { ...filter });
/** What `listKept` gives without a network. */
export const keepList = (filter: Filter, items: Conversation[]) => keep(withQuery(ROOT, { ...filter }), { items, next_cursor: null });
export const open = (id: string, signal?: AbortSignal) => getKept<Tree>(`${ROOT}/${id}`, {}, signal);
/** What `open` gives without a network. */
export const keepTree = (tree: Tree) => keep(`${ROOT}/${tree.id}`, tree);
export const create = (values: NewConversation) => post<Conversation>(ROOT, values);
export const change = (id: string, values: ConversationChange) => patch<Conversation>(`${ROOT}/${id}`, values);
export const destroy = (id: string) => remove(`${ROOT}/${id}`);
export const destroyAll = (ids: string[]) => post<{ deleted: number }>(`${ROOT}/delete`, { ids });

export const ask = (id: string, question: { id: string; parent_id: string | null; is_end: boolean; content: string } & Answering) =>
  post<Started>(`${ROOT}/${id}/messages`, question);
export const regenerate = (message: string, how: Answering) => post<Started>(`/api/messages/${message}/regenerate`, how);
export const edit = (message: string, content: string, run: boolean) =>
  post<Started>(`/api/messages/${message}/edit`, { content, run });
export const carryOn = (message: string) => post<Started>(`/api/messages/${message}/continue`);
export const stop = (run: string) => post<void>(`/api/runs/${run}/stop`);
export const eventsOf = (run: string) => `/api/runs/${run}/events`;
export const askTemporarily = (messages: Pick<Message, 'role' | 'content'>[], how: Answering) =>
  post<{ run: { id: string } }>('/api/temporary', { messages, ...how });

export const models = () => getKept<Page<Model>>('/api/models');
export const projects = () => getKept<Page<Project>>('/api/projects', { limit: 100 });
export const createProject = (name: string) => post<Project>('/api/projects', { name });
export const changeProject = (id: string, values: Partial<Pick<Project, 'name' | 'instructions'>>) => patch<Project>(`/api/projects/${id}`, values);
export const destroyProject = (id: string) => remove(`/api/projects/${id}`);
export const prompts = () => getKept<Page<Prompt>>('/api/prompts', { limit: 100 });
export const createPrompt = (name: string, content: string) => post<Prompt>('/api/prompts', { name, content });
export const changePrompt = (id: string, name: string, content: string) => patch<Prompt>(`/api/prompts/${id}`, { name, content });
export const destroyPrompt = (id: string) => remove(`/api/prompts/${id}`);
