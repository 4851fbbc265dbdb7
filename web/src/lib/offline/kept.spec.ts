import { afterEach, beforeEach, expect, test, vi } from 'vitest';

const DAY = 24 * 60 * 60 * 1000;
const at = (path: string) => `https://fireside.test${path}`;

/** As far as it is needed: requests in the order in which they were put. */
class FakeCache {
  readonly held = new Map<string, Response>();
  /** What happens elsewhere while something is put. */
  meanwhile = async (): Promise<void> => {};
  async put(path: string, response: Response) {
    await this.meanwhile();
    this.held.set(at(path), response);
  }
  match = async (asked: string | { url: string }) => this.held.get(typeof asked === 'string' ? at(asked) : asked.url)?.clone();
  delete = async (asked: string | { url: string }) => this.held.delete(typeof asked === 'string' ? at(asked) : asked.url);
  keys = async () => [...this.held.keys()].map((url) => ({ url }));
}

let caches: Map<string, FakeCache>;
const tab = async () => (vi.resetModules(), import('./kept'));

beforeEach(() => {
  caches = new Map();
  const stored = new Map<string, string>();
  vi.stubGlobal('localStorage', {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => stored.set(key, value),
    removeItem: (key: string) => stored.delete(key),
  });
  vi.stubGlobal('caches', {
    keys: async () => [...caches.keys()],
    delete: async (name: string) => caches.delete(name),
    open: async (name: string) => caches.get(name) ?? caches.set(name, new FakeCache()).get(name)!,
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test('whoever was here last finds it again, before the server could be asked', async () => {
  const before = await tab();
  await before.keepFor('ada');
  await before.keep('/api/me', { name: 'Ada' });
  const now = await tab();
  expect(await now.kept('/api/me')).toEqual({ name: 'Ada' });
  await now.keepFor('bob');
  expect(await now.kept('/api/me')).toBeUndefined();
  expect([...caches.keys()].filter((name) => name.endsWith('ada'))).toEqual([]);
  await now.keepFor(null);
  expect(await (await tab()).kept('/api/me')).toBeUndefined();
});

test('what another tab keeps too late is not there for the next one', async () => {
  const [first, second] = [await tab(), await tab()];
  await first.keepFor('ada');
  await first.keep('/api/me', 'Ada');
  caches.get('fireside:read:ada')!.meanwhile = () => second.keepFor(null);
  await first.keep('/api/late', 'Ada');
  await first.keep('/api/later', 'Ada');
  expect(caches.size).toBe(0);
  await second.keepFor('bob');
  await first.keep('/api/later', 'Ada');
  expect([...caches.keys()]).not.toContain('fireside:read:ada');
  // One that is left over all the same is not taken for the last reader's.
  caches = new Map([['fireside:read:ada', new FakeCache()], ...caches]);
  await caches.get('fireside:read:ada')!.put('/api/me', new Response('"Ada"', { headers: { 'X-Kept-At': String(Date.now()) } }));
  expect(await (await tab()).kept('/api/me')).toBeUndefined();
});

test('what is too old is deleted at the beginning', async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: 0 });
  const kept = await tab();
  await kept.keepFor('ada');
  await kept.keep('/api/old', 1);
  vi.setSystemTime(15 * DAY);
  await kept.keep('/api/young', 2);
  vi.setSystemTime(31 * DAY);
  await kept.dropOld();
  expect([...caches.get('fireside:read:ada')!.held.keys()]).toEqual([at('/api/young')]);
});

test('the last conversations are kept, and no others', async () => {
  const kept = await tab();
  await kept.keepFor('ada');
  for (let i = 0; i < kept.MAX_CONVERSATIONS + 2; i++) await kept.keep(`/api/conversations/${i}`, i);
  expect(await kept.kept('/api/conversations/1')).toBeUndefined();
  expect(await kept.kept('/api/conversations/2')).toBe(2);
  await kept.forget(['2']);
  expect(await kept.kept('/api/conversations/2')).toBeUndefined();
});
