import { expect, test } from 'vitest';
import { Announcer } from './announcer.svelte';

const ANSWER = 'Yes. Yes. It **is** so, see `x`.\n\n- one\n- two\n\nThe [end](https://example.com)';

function hear(pieces: number): string[] {
  const announcer = new Announcer();
  const heard = new Map<number, string>();
  const listen = () => announcer.said.forEach(({ key, text }) => heard.set(key, text));
  for (let end = 0; end <= ANSWER.length; end += pieces) {
    announcer.listen('a', ANSWER.slice(0, end));
    listen();
  }
  announcer.finish('a', ANSWER);
  listen();
  return [...heard.values()];
}

test('every sentence once, without its marks, and the rest at the end', () => {
  expect(hear(1)).toEqual(['Yes.', 'Yes.', 'It is so, see x.', '- one\n- two', 'The end (https://example.com)']);
  expect(hear(7).join(' ')).toBe(hear(1).join(' '));
  expect(hear(1000)).toEqual([expect.stringMatching(/^Yes\. Yes\. It is so[^]*The end/)]);
});

test('an answer that goes on is not read again from its beginning', () => {
  const announcer = new Announcer();
  announcer.finish('a', 'One. Tw'); // stopped, before this page was opened
  announcer.listen('a', 'One. Two. Three');
  expect(announcer.said.map(({ text }) => text)).toEqual(['o.']);
  announcer.clear(); // a visit to the settings
  announcer.listen('a', 'One. Two. Three. Fo');
  announcer.finish('a', 'One. Two. Three. Fo');
  expect(announcer.said.map(({ text }) => text)).toEqual(['Three.', 'Fo']);
  announcer.listen('a', ''); // followed anew, from its first words
  announcer.listen('a', 'One. Two. Three. Four. ');
  expect(announcer.said.map(({ text }) => text)).toEqual(['ur.']);
});

test('what nobody listened to is not read when it ends, and one answer ends the other', () => {
  const announcer = new Announcer();
  announcer.finish('a', 'All of it.');
  expect(announcer.said).toEqual([]);
  announcer.listen('a', 'One. Two');
  announcer.listen('b', 'Three. ');
  announcer.finish('a', 'One. Two. ');
  expect(announcer.said.map(({ text }) => text)).toEqual(['Three.']);
});
