/** What the stores' tests share: a server whose answers come when a test says so, and a browser's storage. */

import type { Message } from '../api/types';

/** As far as the stores look at it. Before they are imported. */
export function setBrowser(): void {
  const location = { pathname: '/', search: '', origin: 'http://fireside' };
  const go = (_: unknown, __: string, address: string) => (location.pathname = address);
  Object.assign(globalThis, { localStorage: storage(), sessionStorage: storage(), location, history: { pushState: go, replaceState: go } });
  Object.assign(globalThis, { addEventListener: () => {}, requestAnimationFrame: () => 0 });
}

export function storage(): Storage {
  const values: Record<string, string> = {};
  const own = (name: string, value: unknown) => Object.defineProperty(values, name, { value, enumerable: false });
  own('getItem', (name: string) => values[name] ?? null);
  own('setItem', (name: string, value: string) => (values[name] = value));
  own('removeItem', (name: string) => delete values[name]);
  return values as unknown as Storage;
}

export const message = (id: string, parent_id: string | null, more: Partial<Message> = {}) =>
  ({ id, parent_id, role: id.includes('q') ? 'user' : 'assistant', content: id, status: 'complete', run_id: null, is_blind: false, ...more }) as Message;
export const tree = (id: string) => ({ id, title: id.toUpperCase(), updated_at: '', model: null, parameters: {}, current_leaf_id: `${id}-a`, messages: [message(`${id}-q`, null), message(`${id}-a`, `${id}-q`)] });
export const started = (parent: string | null) => ({ message: message('new-q', parent), answer: message('new-a', 'new-q', { status: 'running', run_id: 'r' }), run: null });
/** An answer of the server that comes when the test says so. */
export function later<T>(call: { mockReturnValueOnce: (value: never) => unknown }): { come: (value: T) => Promise<void>; fail: () => Promise<void> } {
  let done: (value: T) => void;
  let fail: (error: Error) => void;
  const value = new Promise<T>((resolve, reject) => ([done, fail] = [resolve, reject]));
  value.catch(() => {});
  call.mockReturnValueOnce(value as never);
  const settled = () => new Promise<void>((resolve) => setTimeout(resolve));
  return { come: (value) => (done(value), settled()), fail: () => (fail(new Error('no')), settled()) };
}
