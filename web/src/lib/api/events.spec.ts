import { expect, test } from 'vitest';
import { EventParser } from './events';

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
