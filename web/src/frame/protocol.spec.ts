import { expect, test } from 'vitest';
import { readReply } from './protocol';

test('what a frame says is bounded, whoever is in it', () => {
  expect(readReply({ kind: 'shown', width: 1e9, height: 1e9 }, 720)).toEqual({ kind: 'shown', width: 4096, height: 720 });
  expect(readReply({ kind: 'shown', width: -5, height: 0.4 }, 720)).toEqual({ kind: 'shown', width: 16, height: 16 });
  expect(readReply({ kind: 'shown', width: 0, height: null }, 720)).toEqual({ kind: 'shown', width: 16, height: null });
  expect(readReply({ kind: 'failed', message: `Parse error on line 3:\n${'x'.repeat(1000)}` }, 720)).toEqual({
    kind: 'failed',
    message: 'Parse error on line 3',
  });
  expect(readReply({ kind: 'failed', message: 'x'.repeat(1000) }, 720)).toMatchObject({ message: 'x'.repeat(200) });
  for (const data of [null, 'ready', 1, {}, { kind: 'shown', width: '1', height: NaN }, { kind: 'other' }]) {
    expect(readReply(data, 720)).toBeNull();
  }
});
