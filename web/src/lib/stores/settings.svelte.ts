/** What this browser remembers of how the app looks. */

import { applyTheme, toTheme, type Theme } from '../theme';

function stored<T extends string>(key: string, fallback: T, known: readonly T[]): T {
  const value = localStorage.getItem(`fireside:${key}`) as T | null;
  return value !== null && known.includes(value) ? value : fallback;
}

class Settings {
  #theme = $state<Theme>(toTheme(localStorage.getItem('fireside:theme')));
  #sidebar = $state<'open' | 'closed'>(stored('sidebar', 'open', ['open', 'closed']));

  constructor() {
    this.#apply();
    matchMedia('(prefers-contrast: more)').addEventListener('change', () => this.#apply());
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

  get hasSidebar(): boolean {
    return this.#sidebar === 'open';
  }

  set hasSidebar(open: boolean) {
    this.#sidebar = open ? 'open' : 'closed';
    localStorage.setItem('fireside:sidebar', this.#sidebar);
  }
}

export const settings = new Settings();
