/** What this browser remembers of how the app looks. */

export const THEMES = ['system', 'light', 'dark', 'contrast'] as const;
export type Theme = (typeof THEMES)[number];

function stored<T extends string>(key: string, fallback: T, known: readonly T[]): T {
  const value = localStorage.getItem(`fireside:${key}`) as T | null;
  return value !== null && known.includes(value) ? value : fallback;
}

const DARK = matchMedia('(prefers-color-scheme: dark)');

class Settings {
  #isDeviceDark = $state(DARK.matches);
  #theme = $state<Theme>(stored('theme', 'system', THEMES));
  #sidebar = $state<'open' | 'closed'>(stored('sidebar', 'open', ['open', 'closed']));

  constructor() {
    DARK.addEventListener('change', ({ matches }) => (this.#isDeviceDark = matches));
    document.documentElement.dataset['theme'] = this.#theme;
  }

  get theme(): Theme {
    return this.#theme;
  }

  set theme(theme: Theme) {
    this.#theme = theme;
    localStorage.setItem('fireside:theme', theme);
    document.documentElement.dataset['theme'] = theme;
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
