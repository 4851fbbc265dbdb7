/** The library of prompts, which the composer offers after a slash. */

import * as api from '../api/conversations';
import type { Prompt } from '../api/types';

class Prompts {
  items = $state.raw<Prompt[]>([]);
  isLoaded = $state(false);
  #loading: Promise<void> | null = null;

  /** Once; without a server nothing is offered, and the next slash asks again. */
  load(): Promise<void> {
    this.#loading ??= api.prompts().then(
      ({ items }) => {
        this.items = items;
        this.isLoaded = true;
      },
      () => {
        this.#loading = null;
      },
    );
    return this.#loading;
  }

  matching(start: string): Prompt[] {
    const wanted = start.toLowerCase();
    return this.items.filter(({ name }) => name.toLowerCase().startsWith(wanted));
  }

  async create(name: string, content: string): Promise<void> {
    this.#place(await api.createPrompt(name, content));
  }

  async change(id: string, name: string, content: string): Promise<void> {
    this.#place(await api.changePrompt(id, name, content));
  }

  async destroy(id: string): Promise<void> {
    await api.destroyPrompt(id);
    this.items = this.items.filter((prompt) => prompt.id !== id);
  }

  #place(prompt: Prompt): void {
    this.items = [...this.items.filter(({ id }) => id !== prompt.id), prompt].sort((a, b) => a.name.localeCompare(b.name));
  }
}

export const prompts = new Prompts();
