import { expect, test } from 'vitest';
import { sentenceEnd } from './sentences';

test('a text that comes in pieces is announced in whole sentences, each once', () => {
  const text = 'One. Two is "longer!" 3.14 counts。还有 four\n\nfive';
  const said: string[] = [];
  let from = 0;
  for (let end = 1; end <= text.length; end++) {
    const to = sentenceEnd(text.slice(0, end), from);
    if (to > from) said.push(text.slice(from, to));
    from = to;
  }
  expect(said).toEqual(['One. ', 'Two is "longer!" ', '3.14 counts。', '还有 four\n\n']);
});
