/**
 * What a person has read, kept in this browser for when the server cannot be reached: the session, the lists that the
 * app begins with, and the conversations that were opened last. One cache for each person; it is emptied when they sign
 * out, when their session ends, and when somebody else signs in. Temporary chats never come here.
 */

const PREFIX = 'fireside:read:';
const SWITCH = 'fireside:offline';
const OWNER = 'fireside:reader'; // for all tabs: who was here last
const CONVERSATION = '/api/conversations/';
export const MAX_CONVERSATIONS = 100;
const MAX_LENGTH = 1_000_000; // characters of one conversation, as JSON
const MAX_AGE = 30 * 24 * 60 * 60 * 1000; // milliseconds

/** Undefined: nobody could be asked yet. */
let owner: string | null | undefined;

/** Browsers have caches on https and on the own machine only, as they have service workers. */
const isPossible = () => 'caches' in globalThis;
export const isKeeping = (): boolean => isPossible() && localStorage.getItem(SWITCH) !== 'off';

const caches_ = async () => (isPossible() ? (await caches.keys()).filter((name) => name.startsWith(PREFIX)) : []);

/** Whose things are kept from here on; those of others are removed. Null: nobody's. */
export async function keepFor(user: string | null): Promise<void> {
  owner = user;
  try {
    if (user === null) localStorage.removeItem(OWNER);
    else localStorage.setItem(OWNER, user);
  } catch {
    // No room: nothing is kept.
  }
  for (const name of await caches_()) if (name !== PREFIX + user) await caches.delete(name);
}

export async function setKeeping(on: boolean): Promise<void> {
  localStorage.setItem(SWITCH, on ? 'on' : 'off');
  if (!on) for (const name of await caches_()) await caches.delete(name);
}

async function open(): Promise<Cache | null> {
  if (!isKeeping()) return null;
  const name = owner === undefined ? localStorage.getItem(OWNER) : owner;
  return name === null ? null : caches.open(PREFIX + name);
}

const age = (response: Response): number => Date.now() - Number(response.headers.get('X-Kept-At'));

/** At the beginning: what was kept too long ago goes, whoever's it is. Never fails. */
export async function dropOld(): Promise<void> {
  try {
    for (const name of await caches_()) {
      const cache = await caches.open(name);
      for (const request of await cache.keys()) {
        const response = await cache.match(request);
        if (response && age(response) > MAX_AGE) await cache.delete(request);
      }
    }
  } catch {
    // A browser that keeps nothing.
  }
}

/** Whether somebody is still here, and not somebody else by now, or nobody, as another tab may know. */
export const isHere = (user: string | null | undefined): boolean => localStorage.getItem(OWNER) === user;

/** Never fails: what cannot be kept is not. */
export async function keep(path: string, value: unknown): Promise<void> {
  try {
    const text = JSON.stringify(value);
    if (!owner || !isHere(owner) || text.length > MAX_LENGTH) return;
    const cache = await open();
    if (!cache) return;
    await cache.delete(path); // what is written last is last in the list
    await cache.put(path, new Response(text, { headers: { 'X-Kept-At': String(Date.now()) } }));
    if (!isHere(owner)) await caches.delete(PREFIX + owner);
    if (!path.startsWith(CONVERSATION)) return;
    const conversations = (await cache.keys()).filter(({ url }) => new URL(url).pathname.startsWith(CONVERSATION));
    for (const oldest of conversations.slice(0, -MAX_CONVERSATIONS)) await cache.delete(oldest);
  } catch {
    // No room, or a browser that keeps nothing.
  }
}

/** Undefined for what is not kept, or was kept too long ago. */
export async function kept<T>(path: string): Promise<T | undefined> {
  try {
    const response = await (await open())?.match(path);
    if (!response || age(response) > MAX_AGE) return undefined;
    return (await response.json()) as T;
  } catch {
    return undefined;
  }
}

/** Of conversations that were deleted. */
export async function forget(ids: string[]): Promise<void> {
  const cache = await open().catch(() => null);
  for (const id of ids) await cache?.delete(CONVERSATION + id);
}
