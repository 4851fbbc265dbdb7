import { expect, test } from 'vitest';
import { highlight } from './highlight';
import { math } from './math';
import { MOST_LIVE, renderBlock, safeAddress, toolsFor, type Tools } from './render';

const TOOLS: Tools = { highlight, math, labels: { copy: 'Copy', picture: 'Diagram', preview: 'Preview', image: (host) => `Show image from ${host}` } };
const render = (text: string) => renderBlock(text, {}, TOOLS);

test.each([
  '<script>alert(1)</script>',
  'a <img src=x onerror=alert(1)> b',
  '<svg/onload=alert(1)>',
  '<iframe srcdoc="x">',
  '<a href="javascript:alert(1)">x</a>',
  '`<script>`',
  '```"><script>alert(1)</script>\nx\n```',
  '$<script>alert(1)</script>$',
  '$$\n<img src=x onerror=alert(1)>\n$$',
])('HTML of the model is text: %s', (text) => {
  expect(render(text)).not.toMatch(/<(?:script|img|svg|iframe)|<a href="javascript|onerror=(?!alert\(1\)&#62;|alert)/i);
});

test.each(['javascript:alert(1)', 'JaVaScRiPt:alert(1)', 'data:text/html,x', 'vbscript:x', '/api/me', '//evil', '\tjavascript:x'])(
  'an address that is not of the web is no link: %s',
  (address) => {
    expect(safeAddress(address)).toBeNull();
    expect(render(`[text](<${address}>)`)).not.toContain('<a');
  },
);

test('links leave without a referrer', () => {
  expect(render('[a](https://example.com/?a=1&b=2)')).toContain(
    '<a href="https://example.com/?a=1&#38;b=2" target="_blank" rel="noopener noreferrer nofollow">a</a>',
  );
});

test('an image elsewhere is a button, and one in the text itself an image', () => {
  expect(render('![a "cat"](https://example.com/cat.png)')).toBe(
    '<p><button type="button" class="image" data-image="https://example.com/cat.png">Show image from example.com <span>a &#34;cat&#34;</span></button></p>\n',
  );
  expect(render('![](https://tracker.example/p.gif?secret)')).not.toContain('<img');
  expect(render('![x](data:image/png;base64,AAAA)')).toContain('<img src="data:image/png;base64,AAAA" alt="x">');
  expect(render('![x](data:image/svg+xml;base64,AAAA)')).not.toContain('<img');
  expect(render('![x](mailto:a@example.com) ![y](https://)')).toBe('<p>x y</p>\n');
});

test('an image within a link is its words: a button there would be both at once', () => {
  expect(render('[![badge](https://example.com/b.svg)](https://example.com)')).toMatch(/^<p><a href="https:\/\/example.com" [^>]*>badge<\/a><\/p>/);
});

test('diagrams and pages are offered as pictures once their end has come', () => {
  expect(render('```mermaid\nflowchart LR\n```')).toContain('<div class="code" dir="ltr" data-frame="diagram">');
  expect(render('- a\n  ~~~~HTML\n  <b>\n  ~~~~~')).toContain('data-frame="page"');
  for (const open of ['```mermaid\nx', '```mermaid\nx\n``', '````svg\nx\n```', '```html\nx\n```y', '    ```html']) {
    expect(render(open), open).not.toContain('data-frame');
  }
  expect(render('```python\nx\n```')).not.toContain('data-frame');
});

test('code has its language and colours, and none where the language is unknown', () => {
  expect(render('```python title\nprint(1)\n```')).toMatch(/<span>python<\/span>.*hljs-built_in/s);
  expect(render('```nonsense\n<b>\n```')).toContain('<code>&#60;b&#62;</code>');
});

test('formulas become MathML, prices stay', () => {
  expect(render('so $x^2$ is')).toContain('<msup');
  expect(render('\\(x\\)')).toContain('<math');
  expect(render('$$\nx\n$$')).toMatch(/<div class="math".*<math display="block"/);
  expect(render('$$\nx')).not.toContain('<math');
  expect(render('it costs $5 and $6')).toBe('<p>it costs $5 and $6</p>\n');
});

test('a little HTML is useful in tables', () => {
  expect(render('a<br>b<sub>2</sub>')).toBe('<p>a<br>b<sub>2</sub></p>\n');
  expect(render('a<br onclick=x>b')).not.toContain('<br');
});

test('long code has its colours when it is whole, and nothing else is different', () => {
  const show = (text: string, isOpen: boolean) => renderBlock(text, {}, toolsFor(text, isOpen, TOOLS));
  const short = '```python\nx = 1\n';
  expect(show(short, true)).toBe(render(short));
  const long = short + 'print("y")\n'.repeat(MOST_LIVE / 10);
  expect(show(long, true)).not.toContain('hljs');
  expect(show(long, true).replace(/<[^>]*>/g, '').replaceAll('&#34;', '"')).toBe(render(long).replace(/<[^>]*>/g, '').replaceAll('&quot;', '"'));
  expect(show(long, false)).toBe(render(long));
  expect(render(long)).toContain('hljs');
});
