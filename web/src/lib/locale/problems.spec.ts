import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { PROBLEMS } from './problems';

const SERVER = '../src/fireside/server';
/** For programs; or the app itself would have to be wrong. */
const NOT_FOR_PEOPLE = [
  'client_disconnected',
  'empty_array',
  'export_running', // downloads are the browser's, which tells of them itself
  'id_taken',
  'insufficient_permissions',
  'invalid_api_key',
  'invalid_json',
  'invalid_value',
  'no_backup',
  'not_storable',
  'too_long_for_a_page',
  'too_many_attempts', // it says how many seconds to wait
  'unsupported_value',
  'wrong_role',
];

it('has words for whatever the server refuses a person', () => {
  const paths = readdirSync(SERVER, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.py') && !path.startsWith('api/'));
  const text = paths.map((path) => readFileSync(`${SERVER}/${path}`, 'utf8')).join('\n');
  const codes = new Set([...text.matchAll(/(?:code=|"code": )"(\w+)"/g)].map(([, code]) => code!));
  expect(codes).toContain('wrong_credentials');
  expect([...codes].filter((code) => !(code in PROBLEMS) && !NOT_FOR_PEOPLE.includes(code)).sort()).toEqual([]);
});
