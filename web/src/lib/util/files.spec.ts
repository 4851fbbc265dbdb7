import { expect, test } from 'vitest';
import { MAX_FILE_BYTES, readText } from './files';

test('text in UTF-8 is taken, with plain line ends and without its mark', async () => {
  expect(await readText(new File(['\ufeffgrün\r\n中文\r'], 'a.txt'))).toBe('grün\n中文\n');
  expect(await readText(new File([], 'empty.txt'))).toBe('');
});

test.each([
  ['of another encoding', new File([new Uint8Array([0x67, 0x72, 0xfc, 0x6e])], 'latin.txt'), 'binary'],
  ['with zeros', new File(['PK\0\0'], 'a.zip'), 'binary'],
  ['too large', new File(['x'.repeat(MAX_FILE_BYTES + 1)], 'large.txt'), 'large'],
])('a file is refused: %s', async (_, file, reason) => {
  await expect(readText(file)).rejects.toMatchObject({ reason, fileName: file.name });
});
