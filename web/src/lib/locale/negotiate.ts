/** Which of our languages to speak. Pure; runs before anything else of the app, so it imports nothing. */

export const LOCALES = ['en', 'fr', 'de', 'es', 'zh', 'ar'] as const;
export type Locale = (typeof LOCALES)[number];

const language = (tag: string) => tag.toLowerCase().split('-')[0];

export const isLocale = (tag: string): tag is Locale => (LOCALES as readonly string[]).includes(tag);

/** The first of `wanted` (BCP 47 tags, the favourite first) that is ours in any of its variants, or English. */
export function negotiate(wanted: readonly string[]): Locale {
  for (const tag of wanted) {
    const own = LOCALES.find((locale) => locale === language(tag));
    if (own) return own;
  }
  return 'en';
}

/** What to call `locale` in `<html lang>`: there are several ways to write Chinese, and ours is one of them. */
export const htmlLang = (locale: Locale): string => (locale === 'zh' ? 'zh-Hans' : locale);

export const direction = (locale: Locale): 'ltr' | 'rtl' => (locale === 'ar' ? 'rtl' : 'ltr');

/**
 * What to format dates and numbers by: the person's own variant of `locale` where the browser knows one, so that those
 * who read English in London do not get American dates. Digits are the ones that our sentences are written with.
 */
export function formatTag(locale: Locale, wanted: readonly string[]): string {
  const own = wanted.find((tag) => language(tag) === locale && (locale !== 'zh' || !/hant|tw|hk|mo/i.test(tag)));
  return `${(own ?? htmlLang(locale)).split('-u-')[0]}-u-nu-latn`;
}
