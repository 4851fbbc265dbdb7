/**
 * What must be known before the first paint: the language, its direction, the theme. Built into a script of its own
 * that the page waits for (`scripts/first-paint.js`), so it is small and imports next to nothing.
 */

import { direction, htmlLang, isLocale, negotiate } from './lib/locale/negotiate';
import { applyTheme, toTheme } from './lib/theme';

/** The built files of the languages; empty while developing. */
declare const CATALOG_FILES: Record<string, string>;

const root = document.documentElement;
const chosen = localStorage.getItem('fireside:locale') ?? '';
const locale = isLocale(chosen) ? chosen : negotiate(navigator.languages);
root.lang = htmlLang(locale);
root.dir = direction(locale);
applyTheme(toTheme(localStorage.getItem('fireside:theme')));

const file = typeof CATALOG_FILES === 'undefined' ? undefined : CATALOG_FILES[locale];
if (file) document.head.append(Object.assign(document.createElement('link'), { rel: 'modulepreload', href: file }));
