import { expect, test } from 'vitest';
import { differing, merged } from './differing';

test('what differs is told, null for what is gone, and merged it is what was wanted', () => {
  const before = { system: 'Be brief.', temperature: 1 };
  const wanted = { system: null, temperature: 1, top_p: 0.5, max_tokens: null };
  expect(differing<Partial<Record<string, unknown>>>(wanted, before)).toEqual({ system: null, top_p: 0.5 });
  expect(merged<Partial<Record<string, unknown>>>(before, { system: null, top_p: 0.5 })).toEqual({ temperature: 1, top_p: 0.5 });
});
