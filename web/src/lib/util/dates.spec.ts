import { expect, test } from 'vitest';
import { ageOf, groupByAge } from './dates';

const NOW = new Date(2026, 2, 30, 0, 30); // half an hour after midnight, the day after Europe's clocks went forward

test.each([
  [new Date(2026, 2, 30, 0, 1), 'today'],
  [new Date(2026, 2, 31), 'today'], // a clock that is ahead
  [new Date(2026, 2, 29, 23, 59), 'yesterday'],
  [new Date(2026, 2, 28, 12), 'week'],
  [new Date(2026, 2, 24), 'week'],
  [new Date(2026, 2, 23), 'month'],
  [new Date(2026, 1, 28), '2026-02'],
  [new Date(2025, 11, 31), '2025-12'],
])('%s is %s', (time, age) => expect(ageOf(time, NOW)).toBe(age));

test('groups keep the order of the list', () => {
  const at = (day: number) => ({ updated_at: new Date(2026, 2, day, 0, 10).toISOString() });
  expect(groupByAge([at(30), at(29), at(29), at(1)], NOW).map(({ age, items }) => [age, items.length])).toEqual([
    ['today', 1],
    ['yesterday', 2],
    ['month', 1],
  ]);
});
