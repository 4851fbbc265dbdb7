/** How fast each model writes, from two looks at its counters. */

import type { Health } from '../../lib/api/types';

/** Tokens per second by model; without those whose worker began anew in between, or that were not there before. */
export function rates(before: Health, after: Health): ReadonlyMap<string, number> {
  const seconds = after.uptime_seconds - before.uptime_seconds;
  const found = new Map<string, number>();
  if (seconds <= 0) return found; // the server began anew
  for (const { name, generated_tokens } of after.models) {
    const old = before.models.find((model) => model.name === name)?.generated_tokens;
    if (old !== undefined && generated_tokens >= old) found.set(name, (generated_tokens - old) / seconds);
  }
  return found;
}
