import { expect, test } from 'vitest';
import { asBytes, asNumber, asTime } from './times';

test.each([
  [0, '0 byte'],
  [999, '999 byte'],
  [1000, '1 kB'],
  [1549, '1.5 kB'],
  [145_000_000, '145 MB'],
  [13_400_000_000, '13 GB'],
  [5e15, '5,000 TB'],
])('%i bytes are %s', (bytes, text) => expect(asBytes(bytes)).toBe(text));

test('numbers and times', () => {
  expect(asNumber(1234.56, 1)).toBe('1,234.6');
  expect(asTime('2026-03-30T12:00:00Z', 'day')).toBe('Mar 30, 2026');
});
