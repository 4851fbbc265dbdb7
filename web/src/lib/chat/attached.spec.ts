import type { Tokens } from 'marked';
import { expect, test } from 'vitest';
import { lexer } from '../markdown/syntax';
import { safeName, splitFiles, withFiles } from './attached';

const FILES = [
  { name: 'data.csv', content: 'a,b\n1,2' },
  { name: 'notes.md', content: '# Title\n\n````python\nx\n````\n\n```text file="inner.txt"\nno file\n```' },
  { name: 'empty.txt', content: '' },
  { name: 'Makefile', content: '\n\nall:\n' },
];

test('what is attached comes out as it went in', () => {
  const message = withFiles('What is this?\n', FILES);
  expect(splitFiles(message)).toEqual({ text: 'What is this?', files: FILES.map((file) => ({ ...file, content: file.content.replace(/\n$/, '') })) });
  expect(withFiles('', FILES.slice(0, 1))).toBe('```csv file="data.csv"\na,b\n1,2\n```');
  expect(splitFiles(withFiles('', FILES)).text).toBe('');
});

test('to Markdown each file is one block of code', () => {
  const blocks = lexer().lex(withFiles('Text', FILES)).filter((token): token is Tokens.Code => token.type === 'code');
  expect(blocks.map((block) => [block.lang, block.text])).toEqual(
    FILES.map(({ name, content }) => [expect.stringContaining(`file="${name}"`), content.replace(/\n$/, '')]),
  );
});

test.each(['```python\nx = 1\n```', '```text file="a.txt"\nwithout an end', 'a ```text file="a.txt"\nx\n```', '``text file="a"\nx\n``', ''])(
  'what only looks like a file stays text: %s',
  (text) => expect(splitFiles(text)).toEqual({ text, files: [] }),
);

test('a name is one name', () => {
  expect(safeName('C:\\folder\\a "b"\n`c`.txt')).toBe('a bc.txt');
  expect(safeName('../../etc/passwd')).toBe('passwd');
  expect(safeName('\u202etxt.exe')).toBe('txt.exe');
  expect(safeName('"')).toBe('file.txt');
  expect(safeName(`${'x'.repeat(200)}.csv`)).toMatch(/^x{96}\.csv$/);
});
