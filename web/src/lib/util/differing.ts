/** The fields of `values` that are others than in `before`: what nobody touched here may have been changed elsewhere. */
export function differing<T extends object>(values: T, before: Partial<T>): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== (before[name as keyof T] ?? null))) as Partial<T>;
}

/** What comes of `values` by such changes: null takes a field away. */
export function merged<T extends object>(values: T, changes: Partial<T>): T {
  return Object.fromEntries(Object.entries({ ...values, ...changes }).filter(([, value]) => value !== null)) as T;
}
