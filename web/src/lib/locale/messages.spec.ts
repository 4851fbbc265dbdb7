import { expect, it } from 'vitest';
import settings from '../../../project.inlang/settings.json';
import { problems } from '../../../scripts/messages.js';

it.each(settings.locales)('%s says everything that English says', (locale) => {
  expect(problems(locale)).toEqual([]);
});
