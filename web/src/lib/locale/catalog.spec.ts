import { expect, test, vi } from 'vitest';

vi.mock('../../paraglide/messages/fr.js', async () => {
  await new Promise((resolve) => setTimeout(resolve, 50));
  return { late: true };
});

test('of two languages that are asked for at once, the later holds', async () => {
  const module = await import('./catalog');
  expect(await Promise.all([module.loadCatalog('fr'), module.loadCatalog('en')])).toEqual([false, true]);
  expect(module.catalog).toBe(await import('../../paraglide/messages/en.js'));
});
