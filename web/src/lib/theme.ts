/** How the app looks: light, dark or as the device, with more contrast where somebody wants it. */

export const THEMES = ['system', 'light', 'dark', 'contrast'] as const;
export type Theme = (typeof THEMES)[number];

export const toTheme = (value: string | null): Theme => THEMES.find((theme) => theme === value) ?? 'system';

/** `data-theme` says light or dark, `data-contrast` whether the person chose high contrast or their device asks for it. */
export function applyTheme(theme: Theme): void {
  const root = document.documentElement;
  root.dataset['theme'] = theme;
  root.toggleAttribute('data-contrast', theme === 'contrast' || matchMedia('(prefers-contrast: more)').matches);
}
