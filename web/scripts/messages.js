// What is not right with the catalogues of messages/, by language. `npm run messages` lists it; messages.spec.ts is the
// same as a test. English is the measure: its keys, and what stands in braces in them.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const ROOT = new URL('..', import.meta.url);
const { baseLocale, locales } = JSON.parse(readFileSync(new URL('project.inlang/settings.json', ROOT), 'utf8'));

// Names, and words that a language shares with English.
const SAME = {
  '*': ['app_name', 'data_import_counted', 'export_json', 'export_markdown', 'parameter_top_p', 'version'],
  en: [],
  fr: ['admin', 'composer', 'conversation', 'frame_source', 'health_version', 'settings_prompts', 'sidebar', 'search_results'],
  de: ['field_name', 'health_server', 'health_version', 'prompt_content', 'prompt_name', 'role_admin', 'settings_prompts', 'share_link'],
  es: ['feedback_consent_no', 'settings_prompts'],
  zh: [],
  ar: [],
};

export const others = locales.filter((locale) => locale !== baseLocale);

export function catalogue(locale) {
  const { $schema, ...messages } = JSON.parse(readFileSync(new URL(`messages/${locale}.json`, ROOT), 'utf8'));
  return messages;
}

/** The forms of a message: one, or one for each case. */
function forms(message) {
  return typeof message === 'string' ? { '': message } : message[0].match;
}

function placeholders(text) {
  return new Set([...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name));
}

function problemOf(key, locale, message, english) {
  const given = forms(message);
  if (typeof message !== typeof english) return 'has other forms than English (one, or by number)';
  if (typeof message !== 'string') {
    const cases = Object.keys(given).map((name) => name.replace(/^\w+=/, ''));
    const wanted = new Intl.PluralRules(locale).resolvedOptions().pluralCategories;
    if (String([...cases].sort()) !== String([...wanted].sort())) return `has the cases ${cases}; ${locale} has ${wanted}`;
  }
  const counted = typeof message === 'string' ? undefined : /= (\w+): plural/.exec(String(message[0].declarations))?.[1];
  const expected = new Set(Object.values(forms(english)).flatMap((text) => [...placeholders(text)]));
  for (const [name, text] of Object.entries(given)) {
    const found = placeholders(text);
    const isCounted = /=(zero|one|two)$/.test(name); // "one conversation" needs no number
    const missing = [...expected].filter((other) => !found.has(other) && !(isCounted && other === counted));
    const unknown = [...found].filter((other) => !expected.has(other));
    if (missing.length || unknown.length) return `must hold ${[...expected].map((other) => `{${other}}`)}, as English does`;
    if (!text.trim()) return 'is empty';
  }
  const isAllowed = [...SAME['*'], ...SAME[locale]].includes(key);
  if (locale !== baseLocale && !isAllowed && JSON.stringify(given) === JSON.stringify(forms(english))) return 'is still English';
  return null;
}

/** One line for each thing that is wrong with the catalogue of `locale`. */
export function problems(locale) {
  const english = catalogue(baseLocale);
  const own = catalogue(locale);
  return [
    ...Object.keys(english)
      .filter((key) => !(key in own))
      .map((key) => `${key} is missing: ${JSON.stringify(english[key])}`),
    ...Object.keys(own)
      .filter((key) => !(key in english))
      .map((key) => `${key} is no key of English's any more`),
    ...Object.keys(own)
      .filter((key) => key in english)
      .map((key) => [key, problemOf(key, locale, own[key], english[key])])
      .filter(([, problem]) => problem)
      .map(([key, problem]) => `${key} ${problem}`),
  ];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const locale of locales) {
    const found = problems(locale);
    console.log(`${locale}: ${found.length ? '' : 'complete'}`);
    for (const problem of found) console.log(`  ${problem}`);
    if (found.length) process.exitCode = 1;
  }
}
