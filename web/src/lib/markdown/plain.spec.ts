import { expect, test } from 'vitest';
import { plainText } from './plain';

test('the words stay, the marks go', () => {
  expect(plainText('# Title\n\nA **bold** `<b>` & *it* ~~gone~~ [link](https://example.com/a) <https://example.com> ![cat](https://x.example/c)')).toBe(
    'Title\n\nA bold <b> & it gone link (https://example.com/a) https://example.com cat',
  );
  expect(plainText('so $x^2$ and\n\n$$\ny\n$$')).toBe('so x^2 and\n\ny');
  expect(plainText('> quoted\n> twice\n\n---\n\na  \nb<br>c')).toBe('quoted\ntwice\n\na\nb\nc');
});

test('code is as it was, tables have tabs', () => {
  expect(plainText('```python\nif a < b:\n    print("&amp;")\n```')).toBe('if a < b:\n    print("&amp;")');
  expect(plainText('| a | **b** |\n|---|---|\n| 1 | 2 |')).toBe('a\tb\n1\t2');
});

test('lists stay lists', () => {
  expect(plainText('- one\n- two\n  - three\n\n3. x\n4. y\n\n- [x] done\n- [ ] open')).toBe('- one\n- two\n  - three\n\n3. x\n4. y\n\n[x] done\n[ ] open');
});
