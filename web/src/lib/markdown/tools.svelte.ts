/** Highlighting and formulas, fetched when a text first needs them. What is shown is rendered again once they are there. */

import type { Tools } from './render';

class LazyTools {
  highlight = $state.raw<Tools['highlight']>(null);
  math = $state.raw<Tools['math']>(null);
  #asked = new Set<string>();

  /** Looks at a block of Markdown, and fetches what it needs. */
  want(raw: string): void {
    if (/(?:^|\n)\s*(?:`{3,}|~{3,})\s*\w/.test(raw)) {
      this.#once('highlight', async () => (this.highlight = (await import('./highlight')).highlight));
    }
    if (/\$[^$]|\\[([]/.test(raw)) this.#once('math', async () => (this.math = (await import('./math')).math));
  }

  #once(name: string, load: () => Promise<unknown>): void {
    if (this.#asked.has(name)) return;
    this.#asked.add(name);
    load().catch(() => this.#asked.delete(name)); // without a network the text stays plain; the next block asks again
  }
}

export const tools = new LazyTools();
