import { expect, test } from 'vitest';
import { withFiles } from './attached';
import { asMarkdown, asPlainText } from './transcript';

const PATH = [
  { role: 'user', content: withFiles('Is *this* right?', [{ name: 'a.txt', content: '**1**' }]) },
  { role: 'assistant', content: 'Yes, **it** is.\n' },
];
const nameOf = (role: string) => (role === 'user' ? 'You' : 'Answer');

test('a conversation as Markdown and as plain text', () => {
  expect(asMarkdown(PATH, nameOf)).toBe('## You\n\nIs *this* right?\n\n```text file="a.txt"\n**1**\n```\n\n## Answer\n\nYes, **it** is.\n');
  expect(asPlainText(PATH, nameOf)).toBe('You:\n\nIs *this* right?\n\na.txt:\n**1**\n\nAnswer:\n\nYes, it is.\n');
});
