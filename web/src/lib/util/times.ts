/** Times and amounts as the person's language writes them. */

import { locale } from '../locale/locale.svelte';

/** The server's RFC 3339, in the browser's own time zone. */
export const asTime = (text: string, how: 'time' | 'day' = 'time'): string =>
  new Date(text).toLocaleString(locale.tag, how === 'day' ? { dateStyle: 'medium' } : { dateStyle: 'medium', timeStyle: 'short' });

/** "November 2026" */
export const asMonth = (time: Date): string => time.toLocaleDateString(locale.tag, { month: 'long', year: 'numeric' });

export const asNumber = (value: number, digits = 0): string => value.toLocaleString(locale.tag, { maximumFractionDigits: digits });

const UNITS = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'] as const;

/** In powers of 1000, with three figures at most. */
export function asBytes(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), UNITS.length - 1);
  const amount = bytes / 1000 ** power;
  return amount.toLocaleString(locale.tag, { style: 'unit', unit: UNITS[power]!, unitDisplay: 'short', maximumFractionDigits: amount < 10 ? 1 : 0 });
}
