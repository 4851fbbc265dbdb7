/** Sharing, importing, exporting. */

import { ApiError, get, post, remove, toError, type Page } from './http';
import type { Conversation, Import, Share, ShareWish } from './types';

export const shares = (filter: { conversation?: string; cursor?: string | null } = {}) => get<Page<Share>>('/api/shares', { limit: 50, ...filter });
export const share = (conversation: string, wish: ShareWish) => post<Share>(`/api/conversations/${conversation}/shares`, wish);
export const updateShare = (id: string, wish: ShareWish) => post<Share>(`/api/shares/${id}/update`, wish);
export const revokeShare = (id: string) => remove(`/api/shares/${id}`);
export const revokeAllShares = () => remove('/api/shares');
export const continueShared = (token: string) => post<Conversation>('/api/shares/continue', { token });
export const addressOf = ({ token }: Share) => `${location.origin}/s/${token}`;

export type ExportFormat = 'markdown' | 'html' | 'json';
export function exportAddress(conversation: string, format: ExportFormat, leaf: string | null): string {
  return `/api/conversations/${conversation}/export?${new URLSearchParams({ format, ...(leaf && { leaf }) })}`;
}

export const lastImports = () => get<Page<Import>>('/api/imports', { limit: 1 });
export const findImport = (id: string) => get<Import>(`/api/imports/${id}`);
export const cancelImport = (id: string) => post<void>(`/api/imports/${id}/cancel`);

/** Sends a file of any size. `onProgress` is told how much of it is gone, from 0 to 1. Raises ApiError. */
export function sendImport(file: File, onProgress: (share: number) => void, signal: AbortSignal): Promise<Import> {
  // Not fetch, which does not tell how much has been sent.
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', `/api/imports?${new URLSearchParams({ name: file.name.slice(-200) })}`);
    request.setRequestHeader('X-Fireside', '1');
    request.setRequestHeader('Content-Type', 'application/octet-stream');
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    request.onload = async () => {
      const response = new Response(request.responseText, { status: request.status });
      if (response.ok) resolve((await response.json()) as Import);
      else reject(await toError(response));
    };
    request.onerror = () => reject(new ApiError(0, 'offline', ''));
    request.onabort = () => reject(new ApiError(499, 'aborted', ''));
    signal.addEventListener('abort', () => request.abort());
    request.send(file);
  });
}
