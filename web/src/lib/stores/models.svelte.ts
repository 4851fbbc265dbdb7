/** The models that can be asked. */

import * as api from '../api/conversations';
import type { Model } from '../api/types';

class Models {
  items = $state.raw<Model[]>([]);
  #chosen = $state(localStorage.getItem('fireside:model'));

  async load(): Promise<void> {
    this.items = (await api.models()).items;
  }

  knows(id: string | null): id is string {
    return this.items.some((model) => model.id === id);
  }

  /** For a conversation that has none of its own: the one chosen last, or the server's default. */
  get current(): string | null {
    return this.knows(this.#chosen) ? this.#chosen : this.default;
  }

  get default(): string | null {
    return (this.items.find((model) => model.is_default) ?? this.items[0])?.id ?? null;
  }

  choose(id: string): void {
    this.#chosen = id;
    localStorage.setItem('fireside:model', id);
  }
}

export const models = new Models();
