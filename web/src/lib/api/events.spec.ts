import { afterEach, expect, test, vi } from 'vitest';
import { EventParser, follow } from './events';

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const STREAM = ': hello\n\nid: 1\nevent: text\ndata: {"a": "b: c"}\n\nid: 2\ndata: one\ndata: two\n\n';

test('events are the same whatever pieces they come in', () => {
  const whole = new EventParser().push(STREAM);
  expect(whole).toEqual([
    { id: '1', data: '{"a": "b: c"}' },
    { id: '2', data: 'one\ntwo' },
  ]);
  for (let size = 1; size < STREAM.length; size++) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < STREAM.length; at += size) events.push(...parser.push(STREAM.slice(at, at + size)));
    expect(events).toEqual(whole);
  }
});

test('an event that is not complete is kept back', () => {
  const parser = new EventParser();
  expect(parser.push('data: a\n')).toEqual([]);
  expect(parser.push('\n')).toEqual([{ id: null, data: 'a' }]);
});

test('a server that has too much to do is asked again when it says, one that refuses is not', async () => {
  vi.useFakeTimers();
  const asked: number[] = [];
  const answers = [new Response('{}', { status: 429, headers: { 'Retry-After': '7' } }), new Response('{}', { status: 408 }), new Response('data: x\n\n'), new Response('{}', { status: 404 })];
  vi.stubGlobal('fetch', async () => (asked.push(Date.now()), answers.shift()));
  const seen: string[] = [];
  const start = Date.now();
  const done = follow('/events', ({ data }) => seen.push(data) > 0, new AbortController().signal);
  await vi.advanceTimersByTimeAsync(20_000);
  await done;
  expect(seen).toEqual(['x']);
  expect(asked.map((time) => time - start)).toEqual([0, 7000, 7500]);
  await expect(follow('/events', () => true, new AbortController().signal)).rejects.toMatchObject({ status: 404 });
});
