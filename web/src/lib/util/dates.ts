/** How long ago, in words that a list can be grouped by. */

export type Age = 'today' | 'yesterday' | 'week' | 'month' | string;

const DAY = 24 * 60 * 60 * 1000;

/** Of local days, not of hours; what is older than 30 days has its month, as "2026-03". */
export function ageOf(time: Date, now: Date): Age {
  const days = Math.round((midnight(now) - midnight(time)) / DAY); // rounded: some days have 23 or 25 hours
  if (days <= 0) return 'today';
  if (days === 1) return 'yesterday';
  if (days < 7) return 'week';
  if (days < 30) return 'month';
  return `${time.getFullYear()}-${String(time.getMonth() + 1).padStart(2, '0')}`;
}

export function groupByAge<T extends { updated_at: string }>(items: T[], now: Date): { age: Age; items: T[] }[] {
  const groups = new Map<Age, T[]>();
  for (const item of items) {
    const age = ageOf(new Date(item.updated_at), now);
    groups.set(age, [...(groups.get(age) ?? []), item]);
  }
  return [...groups].map(([age, items]) => ({ age, items }));
}

function midnight(time: Date): number {
  return new Date(time.getFullYear(), time.getMonth(), time.getDate()).getTime();
}
