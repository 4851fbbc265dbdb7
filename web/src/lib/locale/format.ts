/** Dates and numbers as the person writes them. */

import { locale } from './locale.svelte';

export const formatNumber = (value: number, options: Intl.NumberFormatOptions = {}): string => value.toLocaleString(locale.tag, options);

/** "24 Nov 2026" */
export const formatDay = (time: string | Date): string => new Date(time).toLocaleDateString(locale.tag, { dateStyle: 'medium' });

/** "24 Nov 2026, 12:05" */
export const formatTime = (time: string | Date): string => new Date(time).toLocaleString(locale.tag, { dateStyle: 'medium', timeStyle: 'short' });

/** "November 2026" */
export const formatMonth = (time: Date): string => time.toLocaleDateString(locale.tag, { month: 'long', year: 'numeric' });
