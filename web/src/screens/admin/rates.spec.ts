import { expect, test } from 'vitest';
import type { Health } from '../../lib/api/types';
import { rates } from './rates';

const at = (uptime_seconds: number, tokens: Record<string, number>) =>
  ({ uptime_seconds, models: Object.entries(tokens).map(([name, generated_tokens]) => ({ name, generated_tokens })) }) as Health;

test('tokens per second of what was there before', () => {
  const found = rates(at(100, { a: 1000, restarted: 500, gone: 1 }), at(102.5, { a: 1100, restarted: 20, fresh: 30 }));
  expect([...found]).toEqual([['a', 40]]);
});

test('none of a server that began anew', () => expect(rates(at(100, { a: 1 }), at(2, { a: 5 })).size).toBe(0));
