import { expect, test } from 'vitest';
import { filter } from './fuzzy';

const COMMANDS = ['New chat', 'Temporary chat', 'Settings: Appearance', 'Settings: API keys', 'Theme: Dark', 'Thème : sombre', 'Pin', 'Copy conversation as plain text'];
const find = (query: string) => filter(COMMANDS, query, (name) => name);

test('letters in their order find, beginnings of words first', () => {
  expect(find('nc')[0]).toBe('New chat');
  expect(find('temp')).toEqual(['Temporary chat']);
  expect(find('set key')[0]).toBe('Settings: API keys');
  expect(find('theme d')[0]).toBe('Theme: Dark');
  expect(find('theme s')[0]).toBe('Thème : sombre');
  expect(find('pin')[0]).toBe('Pin');
  expect(find('')).toEqual(COMMANDS);
});

test('scattered letters do not', () => {
  expect(find('aardvark')).toEqual([]);
  expect(find('heading')).toEqual([]);
  expect(find('zebra%_')).toEqual([]);
});
