/** The language that the app speaks to this person: their account's, else this browser's. */

import { loadCatalog } from './catalog';
import { direction, formatTag, htmlLang, isLocale, negotiate, type Locale } from './negotiate';

const KEY = 'fireside:locale'; // as boot.ts reads it

class LocaleStore {
  #current = $state<Locale>('en');
  /** What was chosen in this browser, or came with the account; null: what the browser prefers. */
  #chosen = $state<Locale | null>(null);

  get current(): Locale {
    return this.#current;
  }

  get chosen(): Locale | null {
    return this.#chosen;
  }

  /** For Intl. */
  get tag(): string {
    return formatTag(this.#current, globalThis.navigator?.languages ?? []);
  }

  /** Before the app is shown. */
  async start(): Promise<void> {
    const kept = localStorage.getItem(KEY);
    await this.choose(kept !== null && isLocale(kept) ? kept : null);
  }

  /** What one person chose is not for the next one. */
  forget(): void {
    localStorage.removeItem(KEY);
  }

  /** Speaks `locale` from here on; null: what the browser prefers. Of two at once the later holds. Raises where its words cannot be fetched. */
  async choose(locale: Locale | null): Promise<void> {
    const next = locale ?? negotiate(navigator.languages);
    if (!(await loadCatalog(next))) return;
    this.#chosen = locale;
    this.#current = next;
    if (locale) localStorage.setItem(KEY, locale);
    else localStorage.removeItem(KEY);
    document.documentElement.lang = htmlLang(next);
    document.documentElement.dir = direction(next);
  }
}

export const locale = new LocaleStore();
