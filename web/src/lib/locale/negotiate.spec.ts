import { describe, expect, it } from 'vitest';
import settings from '../../../project.inlang/settings.json';
import { direction, formatTag, LOCALES, negotiate } from './negotiate';

describe('negotiate', () => {
  it('takes the first language that is ours, in any variant', () => {
    expect(negotiate(['pt-BR', 'fr-CA', 'en'])).toBe('fr');
    expect(negotiate(['zh-TW'])).toBe('zh');
    expect(negotiate(['AR-eg'])).toBe('ar');
    expect(negotiate(['pt', 'arz'])).toBe('en');
    expect(negotiate([])).toBe('en');
  });

  it('knows the languages that there are catalogues of', () => {
    expect([...LOCALES]).toEqual(settings.locales);
  });

  it('knows the direction that Intl knows', () => {
    for (const locale of LOCALES) {
      const { textInfo } = new Intl.Locale(locale) as Intl.Locale & { textInfo: { direction: string } };
      expect(direction(locale)).toBe(textInfo.direction);
    }
  });
});

describe('formatTag', () => {
  const date = new Date('2026-03-09T12:00:00');
  const shown = (tag: string) => date.toLocaleDateString(tag, { dateStyle: 'short' });

  it("is the person's own variant", () => {
    expect(shown(formatTag('en', ['de', 'en-GB', 'en-US']))).toBe('09/03/2026');
    expect(shown(formatTag('en', ['de']))).toBe('3/9/26');
    expect(formatTag('zh', ['zh-TW'])).toBe('zh-Hans-u-nu-latn');
  });

  it('counts in the digits of our sentences', () => {
    expect((12345).toLocaleString(formatTag('ar', ['ar-EG']))).toMatch(/^12\D345$/);
  });
});
