import { expect, test } from 'vitest';
import { newId } from './ids';

test('ids are UUIDs of version 7, ordered by time', () => {
  expect(newId()).toMatch(/^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$/);
  expect(newId(1000) < newId(1001)).toBe(true);
  expect(newId(5)).not.toBe(newId(5));
});
