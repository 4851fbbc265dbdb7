/** JSON over HTTP as the server speaks it: one error envelope, and a header that no other site's page can send. */

import { keep, kept } from '../offline/kept';

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string | null,
    message: string,
    readonly retryAfter: number | null = null,
  ) {
    super(message);
    this.name = 'ApiError';
  }

  /** No answer came at all: the server or the network is away. */
  get isOffline(): boolean {
    return this.status === 0;
  }
}

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

type Query = Record<string, string | number | boolean | null | undefined>;

let onSignedOut: () => void = () => {};

/** Whom to tell that the server no longer knows this browser. */
export function whenSignedOut(listener: () => void): void {
  onSignedOut = listener;
}

let onHeard: (answered: boolean) => void = () => {};

/** Whom to tell of each request whether the server answered at all. */
export function whenHeard(listener: (answered: boolean) => void): void {
  onHeard = listener;
}

export function withQuery(path: string, query: Query): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return given.length ? `${path}?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : path;
}

/** Raises ApiError, whatever went wrong. */
export async function send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { 'X-Fireside': '1' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ?? null,
      credentials: 'same-origin',
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    onHeard(false);
    throw new ApiError(0, 'offline', '');
  }
  onHeard(true);
  if (response.ok) return response;
  const error = await toError(response);
  if (error.status === 401 && path !== '/api/session') onSignedOut();
  throw error;
}

export async function toError(response: Response): Promise<ApiError> {
  const retryAfter = Number(response.headers.get('Retry-After')) || null;
  try {
    const { error } = (await response.json()) as { error: { message: string; code: string | null } };
    return new ApiError(response.status, error.code, error.message, retryAfter);
  } catch {
    return new ApiError(response.status, null, response.statusText, retryAfter);
  }
}

async function json<T>(response: Response): Promise<T> {
  return (response.status === 204 ? undefined : await response.json()) as T;
}

export const get = async <T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> =>
  json<T>(await send('GET', withQuery(path, query), undefined, signal));

/** The same, kept in this browser; without a network, what was kept. */
export async function getKept<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  const address = withQuery(path, query);
  try {
    const value = await get<T>(address, {}, signal);
    void keep(address, value);
    return value;
  } catch (error) {
    const value = error instanceof ApiError && error.isOffline ? await kept<T>(address) : undefined;
    if (value === undefined) throw error;
    return value;
  }
}

export const post = async <T>(path: string, body: unknown = {}): Promise<T> => json<T>(await send('POST', path, body));
export const patch = async <T>(path: string, body: unknown): Promise<T> => json<T>(await send('PATCH', path, body));
export const put = async <T>(path: string, body: unknown): Promise<T> => json<T>(await send('PUT', path, body));
export const remove = async (path: string, body?: unknown): Promise<void> => {
  await send('DELETE', path, body);
};
