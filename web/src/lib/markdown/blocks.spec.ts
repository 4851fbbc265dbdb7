import { expect, test } from 'vitest';
import { BlockSplitter, type Blocks } from './blocks';
import { renderBlock, type Tools } from './render';
import { lexer } from './syntax';

const TOOLS: Tools = { highlight: null, math: (source) => `<math>${source}</math>`, labels: { copy: 'Copy', picture: 'Diagram', preview: 'Preview', image: (host) => `Show image from ${host}` } };

const DOCUMENT = `# Title

A *paragraph* with **bold**, \`code\`, [a link][home] and $x^2$.
Setext
===

- one
- two

  still two
    - nested

      \`\`\`python
      print("in a list")
      \`\`\`
1. first
2) second

> quote
lazy
> - in it

| a | b |
|---|--:|
| 1 | **2** |

\`\`\`js
let a = 1;

# no heading
\`\`\`
$$
- a + b
$$
text $5 and $6

    indented

\\[ x \\]
***
<details>

raw

</details>

[home]: https://example.com "Home"
~~gone~~ - [x] no task
- [ ] task

\`\`\`mermaid
flowchart LR
  A --> B
\`\`\`
![a cat](https://example.com/cat.png) and [![badge](https://example.com/b.png)](https://example.com)

~~~~html
<p>
~~~
~~~~

last $$open
`;

const html = ({ blocks, links }: Blocks) => blocks.map(({ raw }) => renderBlock(raw, links, TOOLS));

test('streaming any prefix equals rendering it at once', () => {
  const splitter = new BlockSplitter();
  for (let end = 0; end <= DOCUMENT.length; end++) {
    const prefix = DOCUMENT.slice(0, end);
    expect(html(splitter.split(prefix)), JSON.stringify(prefix.slice(-30))).toEqual(html(new BlockSplitter().split(prefix)));
  }
});

test('blocks rendered one by one are what the text is rendered as in one piece', () => {
  const whole = renderBlock(DOCUMENT, lexer().lex(DOCUMENT).links, TOOLS);
  expect(html(new BlockSplitter().split(DOCUMENT)).join('')).toBe(whole);
});

/** Small texts out of what blocks begin and end with, in every order that a seed gives: a counted generator, no luck. */
test('streaming equals rendering for texts that nobody would write', () => {
  const pieces = ['- ', '1. ', '> ', '    ', '\n', '\n\n', '```', '$$', '|a|b|\n|-|-|\n', '---', '===', '# ', 'word', ' ', '\t', '<div>', '*', '[a]', ': x', '\\[', '\\]', '~~~'];
  let seed = 1;
  const next = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
  for (let round = 0; round < 1500; round++) {
    const splitter = new BlockSplitter();
    let text = '';
    for (let length = 2 + next(10); length > 0; length--) {
      text += pieces[next(pieces.length)];
      expect(html(splitter.split(text)), JSON.stringify(text)).toEqual(html(new BlockSplitter().split(text)));
    }
  }
});

test('blocks that are done are left alone', () => {
  const splitter = new BlockSplitter();
  const before = splitter.split('one\n\ntwo\n\nth\nr').blocks;
  const after = splitter.split('one\n\ntwo\n\nth\nree\n\nfour').blocks;
  expect(after[0]).toBe(before[0]);
  expect(after[1]).toBe(before[1]);
  expect(after.map(({ raw }) => raw).join('')).toBe('one\n\ntwo\n\nth\nree\n\nfour');
});

test('a text that was changed in the middle is read anew', () => {
  const splitter = new BlockSplitter();
  splitter.split('one\n\ntwo');
  expect(splitter.split('One\n\ntwo').blocks.map(({ raw }) => raw)).toEqual(['One\n\n', 'two']);
});
