/** What is a formula, by the table that the server's pages are tested with too. */

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { renderBlock, type Tools } from './render';

const CASES: [string, string[]][] = JSON.parse(readFileSync(new URL('../../../../tests/server/documents/formulas.json', import.meta.url), 'utf8'));

test.each(CASES)('%j', (text, formulas) => {
  const seen: string[] = [];
  const math = (source: string, display: boolean) => (seen.push(display ? `display ${source}` : source), '');
  const tools: Tools = { highlight: null, math, labels: { copy: '', picture: '', preview: '', image: () => '' } };
  renderBlock(text, {}, tools);
  expect(seen).toEqual(formulas);
});
