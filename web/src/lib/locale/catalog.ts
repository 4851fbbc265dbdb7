/** The words of one language, fetched before anything is shown: the first page carries no other. */

import type { Locale } from './negotiate';

type Catalog = typeof import('../../paraglide/messages/en.js');

const CATALOGS: Record<Locale, () => Promise<Catalog>> = {
  en: () => import('../../paraglide/messages/en.js'),
  fr: () => import('../../paraglide/messages/fr.js'),
  de: () => import('../../paraglide/messages/de.js'),
  es: () => import('../../paraglide/messages/es.js'),
  zh: () => import('../../paraglide/messages/zh.js'),
  ar: () => import('../../paraglide/messages/ar.js'),
};

/** What the functions of `paraglide/messages.js` speak; see `scripts/split-messages.js`. */
export let catalog: Catalog;
let asked = 0;

/** False, and nothing is changed, where another one was asked for meanwhile. */
export async function loadCatalog(locale: Locale): Promise<boolean> {
  const turn = ++asked;
  const loaded = await CATALOGS[locale]();
  if (turn !== asked) return false;
  catalog = loaded;
  return true;
}
