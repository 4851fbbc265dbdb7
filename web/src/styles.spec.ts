import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

/** What has a left and a right in CSS, and a logical counterpart that turns round with the direction of writing. */
const PHYSICAL =
  /(?<![\w-])(?:(?:margin|padding|border|scroll-margin|scroll-padding)-(?:left|right)(?:-\w+)?|border-(?:top|bottom)-(?:left|right)-radius|(?:left|right)\s*:|(?:text-align|float|clear)\s*:\s*(?:left|right))/;
/** A shorthand of four values, of which the second and the fourth differ. */
const FOUR = /(?<![\w-])(?:margin|padding|border-width|inset)\s*:\s*([^;}]+)/g;

/** The values of a shorthand; a function such as calc() is one. */
function values(text: string): string[] {
  return text.replace(/\s*!important/, '').match(/(?:[^\s(]|\((?:[^()]|\([^()]*\))*\))+/g) ?? [];
}

function faults(css: string): string[] {
  // A table that Markdown aligns to the right has its numbers there in every language.
  const lines = css.split('\n').filter((line) => PHYSICAL.test(line) && !line.includes("[align='right']"));
  const turned = [...css.matchAll(FOUR)].filter(([, text]) => {
    const four = values(text!);
    return four.length === 4 && four[1] !== four[3];
  });
  return [...lines.map((line) => line.trim()), ...turned.map(([all]) => all)];
}

it('sees physical properties', () => {
  for (const css of ['margin-left: 1px', 'a { left: 0 }', 'text-align: right', 'padding: 0 1px 2px calc(1px + var(--u))', 'border-top-left-radius: 2px'])
    expect(faults(css), css).toHaveLength(1);
  for (const css of ['margin-inline-start: 1px', 'padding: 0 1px 2px 1px', 'inset: 0', 'justify-content: left-ish', 'text-align: start'])
    expect(faults(css), css).toEqual([]);
});

it('writes no style that knows left from right', () => {
  const paths = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((path) => /\.(?:css|svelte)$/.test(path));
  expect(paths.length).toBeGreaterThan(20);
  const found = paths.flatMap((path) => {
    const text = readFileSync(`src/${path}`, 'utf8');
    const css = path.endsWith('.css') ? text : [...text.matchAll(/<style[^>]*>([\s\S]*?)<\/style>/g)].map(([, style]) => style).join('\n');
    return faults(css).map((fault) => `${path}: ${fault}`);
  });
  expect(found).toEqual([]);
});

it('asks our own store for the language, which knows the variant that this person writes', () => {
  const paths = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((path) => /\.(?:ts|svelte)$/.test(path) && !path.startsWith('paraglide'));
  expect(paths.filter((path) => /paraglide\/runtime(?!\W*spec)/.test(readFileSync(`src/${path}`, 'utf8')) && !path.endsWith('.spec.ts'))).toEqual([]);
});
