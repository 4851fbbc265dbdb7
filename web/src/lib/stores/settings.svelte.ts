/** What this browser remembers of how the app looks. */

import { applyTheme, toTheme, type Theme } from '../theme';

function stored<T extends string>(key: string, fallback: T, known: readonly T[]): T {
  const value = localStorage.getItem(`fireside:${key}`) as T | null;
  return value !== null && known.includes(value) ? value : fallback;
}

const DARK = matchMedia('(prefers-color-scheme: dark)');

class Settings {
  #isDeviceDark = $state(DARK.matches);
  #theme = $state<Theme>(toTheme(localStorage.getItem('fireside:theme')));
  #sidebar = $state<'open' | 'closed'>(stored('sidebar', 'open', ['open', 'closed']));

  constructor() {
    DARK.addEventListener('change', ({ matches }) => (this.#isDeviceDark = matches));
    matchMedia('(prefers-contrast: more)').addEventListener('change', () => this.#apply());
    this.#apply();
  }

  get theme(): Theme {
    return this.#theme;
  }

  set theme(theme: Theme) {
    this.#theme = theme;
    localStorage.setItem('fireside:theme', theme);
    this.#apply();
  }

  /** The page, and what the browser or the phone paints around it. */
  #apply(): void {
    applyTheme(this.#theme);
    const ground = getComputedStyle(document.documentElement).backgroundColor;
    for (const meta of document.querySelectorAll<HTMLMetaElement>('meta[name="theme-color"]')) {
      meta.dataset['own'] ??= meta.content;
      meta.content = this.#theme === 'system' ? meta.dataset['own'] : ground;
    }
  }

  /** What frames have to be told: they do not inherit it. */
  get isDark(): boolean {
    return this.#theme === 'dark' || (this.#theme !== 'light' && this.#isDeviceDark);
  }

  get hasSidebar(): boolean {
    return this.#sidebar === 'open';
  }

  set hasSidebar(open: boolean) {
    this.#sidebar = open ? 'open' : 'closed';
    localStorage.setItem('fireside:sidebar', this.#sidebar);
  }
}

export const settings = new Settings();
